//! Compares what was assumed with what kubelet lists, and writes the resulting corrections on the pods.
//!
//! A comparison is asked for after every Allocate and start of a container. kubelet lists an allocation a moment
//! after it was made, so the comparison is repeated with growing pauses until nothing is in doubt. Writing is
//! level-triggered: whatever the watch shows differently is written, whenever it is noticed.

mod calls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kerf::ids::PodUid;
use kerf_proto::deviceplugin::KUBELET_SOCKET;
use kerf_runtime::readiness::Condition;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::allocation::{Comparison, OtherDomain};
use crate::api::{About, Cluster, ClusterError, EventText, OTHER_DOMAIN, PodEvents};
use crate::base::backoff::Backoff;
use crate::base::counters::Counters;
use crate::base::gate::Gate;
use crate::device::ids::Resource;
use crate::kubelet::pod_resources::{self, ListError};
use crate::reconcile::calls::{Call, Calls};
use crate::state::State;

const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Pauses between questions to kubelet during one of its calls: it answers about 100 a second.
const RETRIES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];
/// kubelet waits for an answer, and with it every start and stop of a pod of this node: what cannot be learned
/// within this time stays unknown.
const PATIENCE: Duration = Duration::from_secs(6);
/// Compared at least this often, even if no comparison was asked for.
const REVIEW: Duration = Duration::from_secs(30);
/// kubelet is not made to write its checkpoint more often.
const BOOKS: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub struct Reconciler {
    state: State,
    cluster: Cluster,
    counters: Counters,
    calls: Calls,
    socket: PathBuf,
    writes: Gate,
    events: PodEvents,
}

impl Reconciler {
    /// Asks the kubelet whose pod resources socket is in `directory`.
    pub fn new(
        state: State,
        cluster: Cluster,
        counters: Counters,
        directory: &std::path::Path,
        events: PodEvents,
    ) -> Self {
        Self {
            state,
            cluster,
            counters,
            calls: Calls::default(),
            socket: directory.join(KUBELET_SOCKET),
            writes: Gate::default(),
            events,
        }
    }

    /// For events about the node's pods.
    pub fn events(&self) -> &PodEvents {
        &self.events
    }

    /// kubelet counts as waiting for an answer until the returned value is dropped.
    pub fn answering(&self) -> Call {
        self.calls.begin()
    }

    /// Why records cannot be written, in words, where the API server refuses all writes. Pods are served by what
    /// the watch shows, and the watch may go on for minutes after the rights are gone.
    pub fn unrecorded(&self) -> Option<String> {
        self.writes.complaint()
    }

    /// The API server that corrections are written to.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Asks kubelet for its list once and takes it. `within`: while kubelet waits for an answer to a call;
    /// otherwise once it waits for none.
    ///
    /// # Errors
    /// [`ListError`]; nothing has changed then.
    pub async fn compare(&self, within: bool) -> Result<Comparison, ListError> {
        if !within {
            self.calls.quiet().await;
        }
        let question = self.state.allocations(|allocations| allocations.kubelet.question(within));
        let listed =
            pod_resources::list(&self.socket).await.inspect_err(|_| self.counters.reconcile_errors.inc())?;
        let listing = pod_resources::listing(listed, &self.state.roster(), self.cluster.keys());
        let (findings, other_domain) = self.state.allocations(|allocations| {
            let findings = allocations.reconcile(&listing, question);
            (findings, allocations.kubelet.other_domain().is_some())
        });
        self.state.withhold(other_domain);
        for (assumed, real) in &findings.swaps {
            self.counters.swaps.inc();
            tracing::info!(
                assumed = %assumed.pod, uid = %real.pod, container = %real.container,
                "equal pods were served in another order: their GPUs are swapped"
            );
        }
        for key in &findings.moved {
            self.counters.moves.inc();
            tracing::info!(uid = %key.pod, container = %key.container, "kubelet allocated other GPUs than were recorded");
        }
        for key in &findings.adopted {
            tracing::info!(uid = %key.pod, container = %key.container, "allocation found again");
        }
        Ok(findings)
    }

    /// Finds out during a call of kubelet which pod it is admitting: its list names the pod, and the API server
    /// knows the pod where the watch has not shown it yet. One may fail without the other: whatever could be
    /// learned counts.
    pub async fn learn(&self, resource: &Resource, units: u64) {
        if timeout(PATIENCE, self.ask(resource, units)).await.is_err() {
            tracing::warn!("could not learn within {PATIENCE:?} which pod kubelet is admitting");
        }
    }

    async fn ask(&self, resource: &Resource, units: u64) {
        for pause in RETRIES.map(Some).into_iter().chain([None]) {
            let Err(error) = self.compare(true).await else { break };
            tracing::debug!(%error, "kubelet does not say which pod it is admitting");
            let Some(pause) = pause else { break };
            tokio::time::sleep(pause).await;
        }
        let certain = self.state.allocations(|allocations| allocations.certain(resource, units));
        if !certain && self.refresh().await.is_ok() {
            // kubelet's list may be about a pod that was not known a moment ago
            let _ = self.compare(true).await;
        }
    }

    /// Takes what the API server shows now.
    ///
    /// # Errors
    /// The API server's, after it was counted.
    pub async fn refresh(&self) -> Result<(), ClusterError> {
        let before = self.state.allocations(|allocations| allocations.known());
        let pods = self.cluster.list().await.inspect_err(|error| match error {
            // counted and logged when it happened
            ClusterError::TooSoon(_) => {}
            error => {
                self.cluster.failed("list");
                tracing::warn!(%error, "pods of this node cannot be listed");
            }
        })?;
        self.state.allocations(|allocations| {
            // known before the question and not in the answer: deleted, even if the watch has not shown that yet
            let gone = before.iter().filter(|uid| !pods.iter().any(|pod| pod.uid() == *uid));
            gone.for_each(|uid| allocations.forget(uid));
            pods.into_iter().for_each(|pod| allocations.see(pod));
        });
        Ok(())
    }

    /// Compares and writes until the token is cancelled. `alone` is met while no pod of another resource domain
    /// holds GPUs.
    pub async fn follow(self, alone: Condition, token: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(20), LONGEST_PAUSE);
        let mut writer = Writer::default();
        let mut complained = false;
        let mut books = Books::default();
        let mut domain = Domain::default();
        loop {
            let compared = self.compare(false).await;
            alone.set(domain.tell(&self).await);
            let waits = self.state.allocations(|allocations| {
                let list = &allocations.kubelet;
                allocations.unconfirmed() || list.departing() || list.other_domain().is_some()
            });
            let unsure = waits || !compared.as_ref().is_ok_and(|findings| findings.unknown.is_empty());
            let stale = books.keep(&self.state);
            if let Err(error) = &compared
                && !complained
            {
                tracing::warn!(%error, "allocations cannot be compared with kubelet; trying again");
            }
            complained = compared.is_err();
            let unwritten = tokio::select! {
                () = token.cancelled() => return,
                unwritten = writer.write(&self) => unwritten,
            };
            let wait = if unsure || unwritten || stale { backoff.peek() } else { REVIEW };
            tokio::select! {
                () = token.cancelled() => return,
                () = self.state.doubted() => backoff.reset(),
                () = tokio::time::sleep(wait) => drop(backoff.failed()),
            }
        }
    }
}

/// Makes kubelet write its checkpoint again once pods have ended.
///
/// kubelet removes ended pods from its state when it is asked for its list, but writes its checkpoint only when it
/// allocates devices or receives a list of devices. After a start it serves the first pods from the checkpoint:
/// with ended pods in it, it rejects them for lack of devices (`UpdateAllocatedDevices` and
/// `genericDeviceUpdateCallback` in kubelet's device manager). So it is sent the same list once more.
#[derive(Default)]
struct Books {
    stale: bool,
    told: Option<Instant>,
}

impl Books {
    /// Returns whether kubelet is still to be sent the list: not too often, since the list is long.
    fn keep(&mut self, state: &State) -> bool {
        self.stale |= state.allocations(|allocations| allocations.kubelet.struck());
        if self.stale && self.told.is_none_or(|told| told.elapsed() >= BOOKS) {
            state.repeat();
            self.stale = false;
            self.told = Some(Instant::now());
        }
        self.stale
    }
}

/// Writes corrections, each pod at its own pace.
#[derive(Default)]
struct Writer {
    later: BTreeMap<PodUid, Attempt>,
}

/// The last write to a pod.
struct Attempt {
    annotations: BTreeMap<String, String>,
    /// The same correction is not written again before.
    next: Instant,
    backoff: Backoff,
}

impl Writer {
    /// Writes corrections that are due. Returns whether any are left.
    async fn write(&mut self, reconciler: &Reconciler) -> bool {
        let keys = reconciler.cluster.keys();
        let corrections = reconciler.state.allocations(|allocations| allocations.corrections(keys));
        self.later.retain(|uid, _| corrections.iter().any(|correction| correction.uid == *uid));
        if corrections.is_empty() {
            reconciler.writes.answered();
        }
        let mut left = false;
        for correction in corrections {
            let last = self.later.get(&correction.uid);
            let same = last.filter(|last| last.annotations == correction.annotations);
            if same.is_some_and(|last| last.next > Instant::now()) {
                left = true;
                continue;
            }
            let fresh = Backoff::new(Duration::from_millis(200), LONGEST_PAUSE);
            let mut backoff = same.map_or(fresh, |last| last.backoff.clone());
            let next = match reconciler.cluster.annotate_pod(&correction).await {
                Ok(()) => {
                    reconciler.writes.answered();
                    let (pod, uid) = (&correction.reference, &correction.uid);
                    tracing::debug!(%pod, %uid, "record written");
                    if let Some(assigned) = correction.assigned {
                        tracing::info!(%pod, %uid, gpus = assigned, "confirmed");
                        reconciler.events.tell(pod, uid, EventText::normal("GPUAssigned", assigned));
                    }
                    // the watch will show it; until then it must not be written again and again
                    Instant::now() + LONGEST_PAUSE
                }
                Err(error) => {
                    left = true;
                    if !error.gone() {
                        reconciler.cluster.failed("pod");
                        let pod = &correction.reference;
                        tracing::warn!(%pod, uid = %correction.uid, %error, "record not written; trying again");
                        let failure = error.failure();
                        if failure.refused() {
                            reconciler.writes.failed(failure);
                        }
                    }
                    Instant::now() + backoff.failed()
                }
            };
            let attempt = Attempt { annotations: correction.annotations, next, backoff };
            self.later.insert(correction.uid, attempt);
        }
        left
    }
}

/// What was logged and published about pods of another resource domain on this node.
///
/// After a change of `--domain` the GPUs that they hold are not counted anywhere, so no GPU is given to any pod until
/// they have ended. The log, an event of the Node and readiness report it.
#[derive(Default)]
struct Domain {
    told: Option<OtherDomain>,
    /// An event that is not written yet.
    pending: Option<(About, EventText)>,
}

impl Domain {
    /// Reports changes. Returns whether there are no such pods.
    async fn tell(&mut self, Reconciler { state, cluster, .. }: &Reconciler) -> bool {
        let now = state.allocations(|allocations| allocations.kubelet.other_domain().cloned());
        // one of several pods is named: another one of them is not a change
        let resource = |pod: Option<&OtherDomain>| pod.map(|pod| pod.resource.clone());
        if resource(now.as_ref()) != resource(self.told.as_ref()) {
            let event = match &now {
                Some(other_domain) => {
                    tracing::error!(pod = %other_domain.pod, resource = other_domain.resource, "{other_domain}");
                    EventText::warning(OTHER_DOMAIN, other_domain.to_string())
                }
                None => {
                    let message = "no pod of another resource domain holds cards any more".to_owned();
                    tracing::info!("{message}");
                    EventText::normal("OneResourceDomain", message)
                }
            };
            let name = format!("domain-{:x}", Timestamp::now().as_nanosecond());
            self.pending = Some((About::Node(name), event));
            self.told.clone_from(&now);
        }
        if let Some((about, event)) = &self.pending {
            match cluster.event(about, event).await {
                Err(error) if !error.refused() => tracing::debug!(%error, "event not written; trying again"),
                _ => self.pending = None,
            }
        }
        now.is_none()
    }
}
