//! Compares what was assumed with what kubelet lists, and writes the resulting corrections on the pods.
//!
//! A comparison is asked for after every Allocate and start of a container. kubelet lists an allocation a moment
//! after it was made, so the comparison is repeated with growing pauses until nothing is in doubt. Writing is
//! level-triggered: whatever the watch shows differently is written, whenever it is noticed.

mod calls;
mod domain;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kerf::ids::{PodRef, PodUid};
use kerf_proto::deviceplugin::KUBELET_SOCKET;
use kerf_proto::podresources::ListPodResourcesRequest;
use kerf_proto::podresources::pod_resources_lister_client::PodResourcesListerClient;
use kerf_runtime::readiness::Condition;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::allocation::{Allocations, Comparison, ContainerResources, Listing, OtherDomain};
use crate::api::{Cluster, ClusterError};
use crate::base::backoff::Backoff;
use crate::base::counters::Counters;
use crate::base::gate::Gate;
use crate::base::socket::{MAX_MESSAGE_BYTES, dial};
use crate::device::ids::{self, Ids, Resource};
use crate::reconcile::calls::{Call, Calls};
use crate::reconcile::domain::Domain;
use crate::state::State;

/// kubelet answers within this time, or not at all.
const DEADLINE: Duration = Duration::from_secs(3);
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

/// Why kubelet's list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("kubelet's pod resources: no answer within {DEADLINE:?}")]
    Deadline(#[from] tokio::time::error::Elapsed),
    /// The socket does not exist, or no process listens.
    #[error("kubelet's pod resources cannot be reached")]
    Connect(#[from] tonic::transport::Error),
    /// kubelet refused.
    #[error("kubelet's pod resources: {0}")]
    Refused(#[from] Box<tonic::Status>),
}

#[derive(Clone)]
pub struct Reconciler {
    state: State,
    cluster: Cluster,
    counters: Counters,
    calls: Calls,
    socket: PathBuf,
    writes: Gate,
}

impl Reconciler {
    /// Asks the kubelet whose pod resources socket is in `directory`.
    pub fn new(state: State, cluster: Cluster, counters: Counters, directory: &std::path::Path) -> Self {
        Self {
            state,
            cluster,
            counters,
            calls: Calls::default(),
            socket: directory.join(KUBELET_SOCKET),
            writes: Gate::default(),
        }
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
    /// [`ReconcileError`]; nothing has changed then.
    pub async fn compare(&self, within: bool) -> Result<Comparison, ReconcileError> {
        if !within {
            self.calls.quiet().await;
        }
        let question = self.state.allocations(|allocations| allocations.question(within));
        let listing = match timeout(DEADLINE, self.list()).await {
            Ok(Ok(listing)) => listing,
            Ok(Err(error)) => return Err(self.failed(error)),
            Err(elapsed) => return Err(self.failed(elapsed.into())),
        };
        let (findings, other_domain) = self.state.allocations(|allocations| {
            let findings = allocations.reconcile(&listing, question);
            (findings, allocations.other_domain().is_some())
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
    pub async fn learn(&self, resource: &Resource, sizes: impl Iterator<Item = u64> + Clone) {
        if timeout(PATIENCE, self.ask(resource, sizes)).await.is_err() {
            tracing::warn!("could not learn within {PATIENCE:?} which pod kubelet is admitting");
        }
    }

    async fn ask(&self, resource: &Resource, sizes: impl Iterator<Item = u64> + Clone) {
        for pause in RETRIES.map(Some).into_iter().chain([None]) {
            let Err(error) = self.compare(true).await else { break };
            tracing::debug!(%error, "kubelet does not say which pod it is admitting");
            let Some(pause) = pause else { break };
            tokio::time::sleep(pause).await;
        }
        let certain =
            |allocations: &mut Allocations| sizes.clone().all(|units| allocations.certain(resource, units));
        if !self.state.allocations(certain) && self.refresh().await.is_ok() {
            // kubelet's list may be about a pod that was not known a moment ago
            let _ = self.compare(true).await;
        }
    }

    fn failed(&self, error: ReconcileError) -> ReconcileError {
        self.counters.reconcile_errors.inc();
        error
    }

    async fn list(&self) -> Result<Listing, ReconcileError> {
        let channel = dial(&self.socket).await?;
        let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let response = client.list(ListPodResourcesRequest {}).await.map_err(Box::new)?;
        let (keys, roster) = (self.cluster.keys(), self.state.roster());
        let mut listing = Listing::default();
        for pod in response.into_inner().pod_resources {
            let reference = PodRef::new(pod.namespace, pod.name);
            for container in pod.containers {
                // a resource comes once for each NUMA node
                let mut held: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
                for devices in container.devices.iter().filter(|devices| !devices.device_ids.is_empty()) {
                    held.entry(&devices.resource_name).or_default().extend(&devices.device_ids);
                }
                let known = |(name, ids): (&str, Vec<&String>)| {
                    let resource = roster.resource(name, keys)?;
                    let ids = roster.spell(&resource, ids);
                    Some((resource, ids))
                };
                let foreign = held.iter().find(|(name, ids)| foreign(name, &keys.core, ids));
                if let Some((name, _)) = foreign {
                    listing.other_domain =
                        Some(OtherDomain { pod: reference.clone(), resource: (*name).to_owned() });
                }
                let ids: BTreeMap<Resource, Ids> = held.into_iter().filter_map(known).collect();
                if !ids.is_empty() {
                    let container = container.name.as_str().into();
                    listing.held.push(ContainerResources { pod: reference.clone(), container, ids });
                }
            }
            listing.pods.insert(reference);
        }
        Ok(listing)
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
            alone.set(domain.tell(&self.state, &self.cluster).await);
            let unsure = match &compared {
                Ok(findings) => {
                    let waits = self.state.allocations(|allocations| {
                        allocations.unconfirmed() || allocations.departing() || allocations.other_domain().is_some()
                    });
                    waits || !findings.unknown.is_empty()
                }
                Err(_) => true,
            };
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

/// Whether these are ids in kerf's form under another resource domain than that of `core`.
fn foreign(name: &str, core: &str, ids: &[&String]) -> bool {
    let word = |name: &str| name.rsplit_once('/').map(|(_, word)| word.to_owned());
    name != core && word(name) == word(core) && ids.iter().any(|id| ids::card(id).is_some())
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
        self.stale |= state.allocations(Allocations::struck);
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
                    tracing::debug!(pod = %correction.reference, uid = %correction.uid, "record written");
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
