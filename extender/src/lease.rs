//! Which of several replicas is in use: the one whose kube-scheduler holds the lease by which those are elected.

mod pauses;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kerf::k8s::lease_holder;
use kerf_runtime::feed::Feed;
use kerf_runtime::lease_name::LeaseName;
use kerf_runtime::watching::{Event, follow};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use pauses::{PAUSE, Pauses};

/// How often is looked whether the process runs.
const TICK: Duration = Duration::from_millis(100);

/// The name of this host as the kernel has it, which kube-scheduler takes for its identity, too.
pub(crate) fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// The longest name of a host.
const HOST_MAX: usize = 253;

/// A holder's name as it is shown: whoever may write the lease may have written anything.
fn shown(holder: &str) -> String {
    holder.chars().take(HOST_MAX).flat_map(char::escape_debug).collect()
}

/// Whether the scheduler of this pod is the one that is elected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The lease is not known yet, or there is none.
    Unknown,
    Active,
    /// Another holds the lease.
    Standby {
        active: String,
    },
    /// The last holder has not renewed it, or gave it back.
    Nobody,
}

/// What is known of the lease.
#[derive(Debug)]
pub(crate) struct Election {
    lease: LeaseName,
    host: String,
    seen: Mutex<Option<Seen>>,
    handover: Mutex<Handover>,
    /// The term at the time of each.
    pauses: Pauses<Term>,
    news: Notify,
}

/// Why nothing may be written now. The scheduler tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotLeading {
    #[error("extender is not the one in use: {0}")]
    Standing(String),
    #[error("extender was stopped for more than {} s, and has not read the scheduler's lease since", PAUSE.as_secs())]
    Paused,
    #[error("extender waits for what another one may still write")]
    Unsettled,
}

/// The holder with its whole identity, and how often the holder has changed: equal as long as no other held the lease.
type Term = Option<(Option<String>, Option<i32>)>;

/// What a scheduler does that gives the lease back, as one does that is ended: the bindings that it has sent may still be
/// written. One that only stops renewing has stopped sending long before the lease runs out.
#[derive(Debug, Default)]
struct Handover {
    /// When the lease was last seen to be given back.
    given_back: Option<Instant>,
    /// When the scheduler beside it first called while another's lease was seen: the news of the lease may be late.
    early: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    /// The holder's host; empty where nobody holds it.
    holder: String,
    term: Term,
    renewed: Option<String>,
    /// When it was last seen to have changed. The holder's clock may differ, so kube-scheduler counts in this way too.
    at: Instant,
    lasts: Duration,
}

impl Election {
    pub fn new(lease: LeaseName, host: String) -> Arc<Self> {
        Arc::new(Self {
            lease,
            host,
            seen: Mutex::default(),
            handover: Mutex::default(),
            pauses: Pauses::new(Instant::now()),
            news: Notify::new(),
        })
    }

    pub fn standing(&self) -> Standing {
        self.standing_at(Instant::now())
    }

    fn standing_at(&self, now: Instant) -> Standing {
        match &*self.seen.lock() {
            None => Standing::Unknown,
            Some(seen) if seen.holder.is_empty() || now > seen.at + seen.lasts => Standing::Nobody,
            Some(seen) if seen.holder == self.host => Standing::Active,
            Some(seen) => Standing::Standby { active: seen.holder.clone() },
        }
    }

    /// Whether this replica may write: its scheduler holds the lease, nothing of the last holder can follow, and the process
    /// was not stopped since the lease was read. Each write takes at most `write`.
    ///
    /// # Errors
    /// Why not.
    pub fn may_write(&self, write: Duration) -> Result<(), NotLeading> {
        self.may_write_at(Instant::now(), write)
    }

    fn may_write_at(&self, now: Instant, write: Duration) -> Result<(), NotLeading> {
        if self.look(now) {
            return Err(NotLeading::Paused);
        }
        if self.standing_at(now) != Standing::Active {
            return Err(NotLeading::Standing(self.text()));
        }
        self.unsettled(now, write).map_or(Ok(()), |_| Err(NotLeading::Unsettled))
    }

    /// Whether the process was stopped since the lease was read. Looks before anything that has come meanwhile is heeded.
    fn look(&self, now: Instant) -> bool {
        self.pauses.look(now, || self.term())
    }

    fn term(&self) -> Term {
        self.seen.lock().as_ref().and_then(|seen| seen.term.clone())
    }

    /// Notices when the process was stopped, and reads the lease then, in `read` at most.
    pub async fn follow_pauses(self: Arc<Self>, client: Client, read: Duration, token: CancellationToken) {
        let api = Api::<Lease>::namespaced(client, &self.lease.namespace);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = false;
        while token.run_until_cancelled(ticks.tick()).await.is_some() {
            let asked = Instant::now();
            if !self.look(asked) {
                told = false;
                continue;
            }
            if !told {
                tracing::warn!(
                    "was stopped, or got no processor time: nothing is bound until the lease has been read"
                );
                told = true;
            }
            match timeout(read, api.get_opt(&self.lease.name)).await {
                Ok(Ok(lease)) => self.resume(lease, asked, Instant::now()),
                Ok(Err(error)) => tracing::debug!(%error, "lease cannot be read"),
                Err(_) => tracing::debug!("lease cannot be read: no answer in time"),
            }
        }
    }

    /// After a pause: the lease as it was read, asked for at `asked`.
    fn resume(&self, lease: Option<Lease>, asked: Instant, now: Instant) {
        match lease {
            Some(lease) => self.apply(lease, now),
            None => self.gone(now),
        }
        let Some(term) = self.pauses.confirm(asked, now, || self.term()) else { return };
        if term != self.term() {
            // another one led meanwhile: the watches have to show what it has bound
            self.handover.lock().given_back = Some(now);
        }
    }

    fn gone(&self, now: Instant) {
        self.look(now);
        *self.seen.lock() = None;
        self.handover.lock().given_back = Some(now);
    }

    /// Waits until no write of the last holder can follow, each of which takes at most `write`.
    pub async fn settled(&self, write: Duration) {
        loop {
            // before the look, so that no news is missed
            let news = self.news.notified();
            let Some(until) = self.unsettled(Instant::now(), write) else { return };
            tokio::select! {
                () = sleep_until(until) => {}
                () = news => {}
            }
        }
    }

    /// Until when to wait for them.
    fn unsettled(&self, now: Instant, write: Duration) -> Option<Instant> {
        let standing = self.standing_at(now);
        let mut handover = self.handover.lock();
        let since = match standing {
            Standing::Unknown => None,
            Standing::Active => handover.given_back,
            // kube-scheduler calls when it is elected, so this is about to be seen
            Standing::Standby { .. } | Standing::Nobody => Some(*handover.early.get_or_insert(now)),
        };
        since.map(|since| since + write).filter(|until| *until > now)
    }

    /// As `/readyz` says it.
    pub fn text(&self) -> String {
        let lease = &self.lease;
        match self.standing() {
            Standing::Unknown => format!("lease {lease} not seen yet"),
            Standing::Active => format!("active: the scheduler of this pod holds the lease {lease}"),
            Standing::Standby { active } => format!("standby: {} holds the lease {lease}", shown(&active)),
            Standing::Nobody => format!("standby: nobody holds the lease {lease}"),
        }
    }

    /// Follows the lease until the token is cancelled.
    pub async fn follow(self: Arc<Self>, client: Client, feed: Feed, token: CancellationToken) {
        let fields = format!("metadata.name={}", self.lease.name);
        let api = Api::<Lease>::namespaced(client, &self.lease.namespace);
        let mut listed = false;
        follow(api, Some(&fields), feed, token, |event| match event {
            Event::Init => listed = false,
            Event::InitApply(lease) | Event::Apply(lease) => {
                listed = true;
                self.apply(lease, Instant::now());
            }
            Event::InitDone if listed => {}
            Event::InitDone | Event::Delete(_) => self.gone(Instant::now()),
        })
        .await;
    }

    fn apply(&self, lease: Lease, now: Instant) {
        self.look(now);
        let holder = lease_holder(&lease).to_owned();
        let spec = lease.spec.unwrap_or_default();
        let renewed = spec.renew_time.and_then(|time| serde_json::to_string(&time).ok());
        let term = Some((spec.holder_identity, spec.lease_transitions));
        let lasts =
            Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or(0));
        let before = self.standing_at(now);
        {
            let mut handover = self.handover.lock();
            if holder.is_empty() {
                handover.given_back = handover.given_back.filter(|_| before == Standing::Nobody).or(Some(now));
            } else if holder == self.host {
                handover.early = None;
            } else if self.seen.lock().as_ref().is_none_or(|seen| seen.holder != holder) {
                *handover = Handover::default();
            }
        }
        {
            let mut seen = self.seen.lock();
            let unchanged = seen.as_ref().filter(|seen| seen.renewed == renewed && seen.holder == holder);
            let at = unchanged.map_or(now, |seen| seen.at);
            *seen = Some(Seen { holder, term, renewed, at, lasts });
        }
        if self.standing_at(now) != before {
            tracing::info!(standing = self.text(), "scheduler's lease");
        }
        self.news.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
