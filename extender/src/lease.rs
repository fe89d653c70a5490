//! Which of several replicas is in use: the one whose kube-scheduler holds the lease by which those are elected.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::coordination::v1::Lease;
use kerf::ids::PodRef;
use kerf::ids::syntax::{is_label, is_subdomain};
use kerf::k8s::lease_holder;
use kerf_runtime::feed::Feed;
use kerf_runtime::watching::{Event, follow};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Namespace and name of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName(PodRef);

impl FromStr for LeaseName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (namespace, name) = text.split_once('/').unwrap_or_default();
        ensure!(is_label(namespace) && is_subdomain(name), "{text:?} is not NAMESPACE/NAME of a Lease");
        Ok(Self(PodRef::new(namespace, name)))
    }
}

/// The name of this host as the kernel has it, which kube-scheduler takes for its identity, too.
pub(crate) fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
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
    news: Notify,
}

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
    renewed: Option<String>,
    /// When it was last seen to have changed. The holder's clock may differ, so kube-scheduler counts in this way too.
    at: Instant,
    lasts: Duration,
}

impl Election {
    pub fn new(lease: LeaseName, host: String) -> Arc<Self> {
        Arc::new(Self { lease, host, seen: Mutex::default(), handover: Mutex::default(), news: Notify::new() })
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
        let lease = &self.lease.0;
        match self.standing() {
            Standing::Unknown => format!("lease {lease} not seen yet"),
            Standing::Active => format!("active: the scheduler of this pod holds the lease {lease}"),
            Standing::Standby { active } => format!("standby: {active} holds the lease {lease}"),
            Standing::Nobody => format!("standby: nobody holds the lease {lease}"),
        }
    }

    /// Follows the lease until the token is cancelled.
    pub async fn follow(self: Arc<Self>, client: Client, feed: Feed, token: CancellationToken) {
        let fields = format!("metadata.name={}", self.lease.0.name);
        let api = Api::<Lease>::namespaced(client, &self.lease.0.namespace);
        let mut listed = false;
        follow(api, Some(&fields), feed, token, |event| match event {
            Event::Init => listed = false,
            Event::InitApply(lease) | Event::Apply(lease) => {
                listed = true;
                self.apply(lease, Instant::now());
            }
            Event::InitDone if listed => {}
            Event::InitDone | Event::Delete(_) => {
                *self.seen.lock() = None;
                self.handover.lock().given_back = Some(Instant::now());
            }
        })
        .await;
    }

    fn apply(&self, lease: Lease, now: Instant) {
        let holder = lease_holder(&lease).to_owned();
        let spec = lease.spec.unwrap_or_default();
        let renewed = spec.renew_time.and_then(|time| serde_json::to_string(&time).ok());
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
            *seen = Some(Seen { holder, renewed, at, lasts });
        }
        if self.standing_at(now) != before {
            tracing::info!(standing = self.text(), "scheduler's lease");
        }
        self.news.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(holder: &str, renewed: u32) -> Lease {
        let renewed = format!("2026-01-01T00:00:{renewed:02}.000000Z");
        let spec = json!({ "holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15 });
        serde_json::from_value(json!({ "metadata": {}, "spec": spec })).unwrap()
    }

    #[test]
    fn it_is_active_while_its_own_scheduler_renews_the_lease() {
        let election = Election::new("kerf-system/kerf-scheduler".parse().unwrap(), "pod-a".to_owned());
        let standby = |active: &str| Standing::Standby { active: active.to_owned() };
        assert_eq!(election.standing(), Standing::Unknown);
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let standing = |holder: &str, renewed, seconds| {
            election.apply(lease(holder, renewed), after(seconds));
            election.standing_at(after(seconds))
        };
        assert_eq!(standing("pod-b_8c3f", 1, 0), standby("pod-b"));
        assert_eq!(standing("pod-a_11d0", 2, 1), Standing::Active);
        assert_eq!(election.standing_at(after(16)), Standing::Active);
        // seen again, as after a list, and not renewed
        assert_eq!(standing("pod-a_11d0", 2, 15), Standing::Active);
        assert_eq!(election.standing_at(after(17)), Standing::Nobody);
        assert_eq!(standing("pod-a_11d0", 3, 18), Standing::Active);
        // given back
        assert_eq!(standing("", 4, 19), Standing::Nobody);
        // a name that only begins like its own
        assert_eq!(standing("pod-a-2_77aa", 5, 20), standby("pod-a-2"));
    }

    #[test]
    fn what_the_last_holder_has_sent_is_waited_for_where_it_gave_the_lease_back() {
        let election = Election::new("kerf-system/kerf-scheduler".parse().unwrap(), "pod-a".to_owned());
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let write = Duration::from_secs(3);
        let unsettled = |seconds| election.unsettled(after(seconds), write);
        // there is no lease yet: the first scheduler of all
        assert_eq!(unsettled(0), None);
        election.apply(lease("pod-b_8c3f", 1), after(0));
        election.apply(lease("", 2), after(10));
        election.apply(lease("pod-a_11d0", 3), after(11));
        assert_eq!(unsettled(11), Some(after(13)));
        assert_eq!(unsettled(13), None);
        // renewed
        election.apply(lease("pod-a_11d0", 4), after(14));
        assert_eq!(unsettled(14), None);

        // its scheduler was faster than the news
        election.apply(lease("pod-b_8c3f", 5), after(20));
        assert_eq!(unsettled(21), Some(after(24)));
        assert_eq!(unsettled(22), Some(after(24)));
        election.apply(lease("", 6), after(22));
        election.apply(lease("pod-a_11d0", 7), after(22));
        assert_eq!(unsettled(22), Some(after(25)));

        // the news are lost, or a call is not the scheduler's: not every call is held up
        election.apply(lease("pod-b_8c3f", 8), after(30));
        assert_eq!(unsettled(30), Some(after(33)));
        election.apply(lease("pod-b_8c3f", 9), after(32));
        assert_eq!(unsettled(33), None);
        assert_eq!(unsettled(34), None);

        // the lease ran out: its holder had stopped before
        election.apply(lease("pod-a_11d0", 10), after(50));
        assert_eq!(unsettled(50), None);
    }

    #[test]
    fn a_lease_is_named_with_its_namespace() {
        assert!("kerf-system/kerf-scheduler".parse::<LeaseName>().is_ok());
        for wrong in ["kerf-scheduler", "/a", "a/", "A/b", "a/b/c", ""] {
            assert!(wrong.parse::<LeaseName>().unwrap_err().to_string().contains("NAMESPACE/NAME"), "{wrong}");
        }
    }
}
