//! Keeps kubelet's ids and placement records together: finds the container that a call is for, steers kubelet to
//! ids of the recorded GPUs, and notes the ids that it took, so that a record that kubelet did not follow is
//! corrected.

use kerf::ids::PodRef;
use kerf_proto::deviceplugin::ContainerPreferredAllocationRequest;

use crate::allocation::{Answer, Decision, Refusal};
use crate::api::EventText;
use crate::device::ids::{Ids, Resource};
use crate::front::limits::Limits;
use crate::offer::{Offered, prefer};
use crate::reconcile::Reconciler;
use crate::state::State;

/// The placement records of this node's pods, and the clients that learn about them.
#[derive(Clone)]
pub struct Records {
    pub state: State,
    pub reconciler: Reconciler,
    /// `None`: nothing holds containers to their shares.
    pub limits: Option<Limits>,
}

impl Records {
    /// Chooses ids for one container.
    pub(super) async fn prefer(
        &self,
        resource: &Resource,
        Offered { offer, pool }: &Offered,
        request: &ContainerPreferredAllocationRequest,
    ) -> Vec<String> {
        let size = usize::try_from(request.allocation_size).unwrap_or_default();
        self.reconciler.learn(resource, size as u64).await;
        let preferred = self.state.allocations(|allocations| allocations.preferred_devices(resource, size as u64));
        let roster = self.state.roster();
        let (available, must) = (&request.available_device_i_ds, &request.must_include_device_i_ds);
        let gpu = |id| roster.card(resource, id);
        let chosen = prefer::choose(offer.order, pool, &preferred, gpu, available, must, size);
        let ids = roster.spell(resource, &chosen);
        self.state.allocations(|allocations| allocations.kubelet.advise(resource, &ids));
        chosen
    }

    /// Finds out which pod kubelet is admitting, unless it took the ids that it was advised to take.
    async fn learn(&self, resource: &Resource, ids: &Ids) {
        let known = self.state.allocations(|allocations| {
            allocations.kubelet.advised(resource, ids) && allocations.certain(resource, ids.len())
        });
        if !known {
            self.reconciler.learn(resource, ids.len()).await;
        }
    }

    /// Notes that kubelet took these ids, which name the container's GPUs. A failure here never fails the call.
    pub(super) async fn took(&self, resource: &Resource, ids: &[String]) {
        let ids = self.state.roster().spell(resource, ids);
        self.learn(resource, &ids).await;
        let units = ids.len();
        if let Some((key, decision)) = self.state.allocations(|allocations| allocations.take_counted(resource, ids))
        {
            self.state.decided(resource, units, Ok((&key, &decision)));
            let (resource, Decision { evidence, candidates, .. }) = (resource.as_str(), &decision);
            tracing::debug!(resource, uid = %key.pod, container = %key.container, %evidence, candidates, "shares by count taken");
        }
        self.state.doubt();
    }

    /// The GPUs of the container that the call is for, by its record.
    ///
    /// # Errors
    /// [`Refusal`]; kubelet then fails the pod.
    pub(super) async fn allocate(&self, resource: &Resource, ids: Ids) -> Result<Answer, Refusal> {
        self.learn(resource, &ids).await;
        let first = self.state.allocations(|allocations| allocations.allocate(resource, ids.clone()));
        match first {
            Ok(answer) => Ok(answer),
            Err(refusal) if refusal.settled() => Err(refusal),
            Err(refusal) => {
                tracing::debug!(%refusal, "asking again before refusing");
                let refreshed = self.reconciler.refresh().await;
                let _ = self.reconciler.compare(true).await;
                let again = self.state.allocations(|allocations| allocations.allocate(resource, ids));
                again.map_err(|refusal| match (refusal, refreshed) {
                    (Refusal::NobodyWaits { .. } | Refusal::Ambiguous { .. }, Err(error)) => {
                        Refusal::NoAnswer { failure: error.failure() }
                    }
                    (refusal, _) => refusal,
                })
            }
        }
    }

    /// Tells the pod's owner why it gets no GPU.
    pub(super) fn refused(&self, pod: &PodRef, why: &str) {
        if let Some(uid) = self.state.allocations(|allocations| allocations.uid_of(pod)) {
            self.reconciler.events().tell(pod, &uid, EventText::warning("GPURefused", why.to_owned()));
        }
    }

    /// Notes that the container with these ids starts. Returns the label value in metrics.
    pub(super) async fn starts(&self, label: &str, ids: &Ids) -> &'static str {
        let known = || self.state.allocations(|allocations| allocations.starts(ids));
        if known() {
            return "known";
        }
        let _ = self.reconciler.refresh().await;
        let _ = self.reconciler.compare(false).await;
        // only kubelet knows the ids of an init container that was served before a restart of the plugin, and what
        // the container has was decided at Allocate: there is nothing to refuse here
        if known() {
            return "adopted";
        }
        tracing::info!(
            resource = label,
            units = ids.len(),
            "a container starts with device ids that were allocated before this plugin started"
        );
        "unknown"
    }
}
