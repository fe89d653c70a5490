//! The parts of a running extender.

use std::sync::Arc;

use kerf::annotation::Keys;
use kerf::ids::syntax::is_uid;
use kerf::policy::Policy;
use kerf::request::{GpuRequest, PodRequest};
use kerf_runtime::readiness::Readiness;
use kerf_runtime::shutdown::Tasks;

use crate::binder::Binder;
use crate::bodies::Bodies;
use crate::budgets::Budgets;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::decisions::Decisions;
use crate::in_flight::InFlight;
use crate::intent::Intents;
use crate::lease::{Election, NotLeading};
use crate::metrics::Metrics;
use crate::planning::{Place, Planning, PlanningError};
use crate::refused::Refused;

pub(crate) struct App {
    pub keys: Keys,
    pub policy: Policy,
    /// How many nodes filter leaves to the scheduler; `None`: all that fit.
    pub candidates: Option<usize>,
    pub bodies: Arc<Bodies>,
    pub cluster: Arc<Cluster>,
    pub intents: Intents,
    pub in_flight: InFlight,
    pub budgets: Budgets,
    pub refused: Refused,
    pub decisions: Decisions,
    pub planning: Planning,
    pub binder: Binder,
    pub clock: Arc<Clock>,
    /// Where several replicas are elected.
    pub election: Option<Arc<Election>>,
    pub metrics: Metrics,
    pub tasks: Tasks,
    pub readiness: Readiness,
}

impl App {
    /// Remembers the node where a pod in flight will most likely be bound.
    pub fn intend(&self, pod: &PodRequest, node: &str) {
        let uid = &pod.uid;
        if !is_uid(uid.as_str()) || self.cluster.is_gone(uid) {
            return;
        }
        // the scheduler's watch may be ahead of ours
        let shown = self.cluster.is_pending(uid);
        if let Ok(plan) = self.cluster.asking(pod, self.policy).plan(node) {
            self.cluster.expect(uid, &node.into(), self.clock.now());
            self.intents.remember(uid.clone(), shown, node.into(), plan, self.clock.now());
        }
    }

    /// Waits until no binding of another replica can follow, where one has just handed over to this one.
    pub async fn handed_over(&self) {
        if let Some(election) = &self.election {
            election.settled(self.binder.write).await;
        }
    }

    /// Whether this replica may write now, where several are elected.
    ///
    /// # Errors
    /// Why not; the caller tries again.
    pub fn leads(&self) -> Result<(), NotLeading> {
        self.election.as_ref().map_or(Ok(()), |election| election.may_write(self.binder.write))
    }

    /// Runs the planning of a pod on one node where it delays no other work.
    pub async fn planned<T: Send + 'static>(
        self: &Arc<Self>,
        request: &Arc<GpuRequest>,
        plan: impl Fn(&Self) -> T + Send + 'static,
    ) -> Result<T, PlanningError> {
        let (app, request) = (self.clone(), request.clone());
        let work = move |place: Place| place.allows(&request, app.policy, 1).map(|()| plan(&app));
        self.planning.run_here_or_there(0, work).await
    }
}
