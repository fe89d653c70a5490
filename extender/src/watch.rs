//! Pods and Nodes from the API server into the [`Cluster`]: translated on arrival, then dropped.

mod grouped;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kerf::annotation::Record;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf::k8s::{self, Holding, Queued};
use kerf::ledger::Seen;
use kerf::placement::shape::Shape;
use kerf::placement::survey::Sighting;
use kerf_runtime::feed::Feed;
use kerf_runtime::guarded::Guarded;
use kerf_runtime::readiness::Condition;
use kerf_runtime::watching::{Event, follow};
use kube::{Api, Client, Resource};
use tokio_util::sync::CancellationToken;

use grouped::GroupedPod;

use crate::app::App;
use crate::budgets::Listed;
use crate::cluster::Applied;

/// Follows all Nodes until the token is cancelled. `synced` is met after the first complete list.
pub(crate) async fn nodes(app: Arc<App>, client: Client, feed: Feed, synced: Condition, token: CancellationToken) {
    let mut listed = BTreeSet::new();
    follow(Api::<Guarded<Node>>::all(client), None, feed, token, |event| match event {
        Event::Init => listed.clear(),
        Event::InitApply(node) | Event::Apply(node) => {
            // a Node that cannot be read still exists, with what is known of it
            listed.extend(name(&node).map(NodeName::from));
            let Some(node) = node.readable() else { return };
            let Some(view) = k8s::node(&node, &app.keys) else { return };
            if let Err(error) = &view.inventory {
                tracing::warn!(node = %view.name, %error, "GPU inventory cannot be read; the node takes no pod");
            }
            app.cluster.apply_taints(&view.name, k8s::Taints::of(&node));
            app.cluster.apply_failing(&view.name, k8s::failing(&node));
            app.cluster.apply_node(&view);
            app.cluster.apply_allocatable(&view.name, k8s::allocatable(&node));
        }
        Event::Delete(node) => {
            if let Some(name) = name(&node) {
                listed.remove(name);
                app.cluster.delete_node(name);
            }
        }
        Event::InitDone => {
            app.cluster.retain_nodes(&listed);
            listed = BTreeSet::<NodeName>::new();
            synced.set(true);
        }
    })
    .await;
}

/// Follows all Pods that have not ended until the token is cancelled. `synced` is met after the first complete
/// list.
pub(crate) async fn pods(app: Arc<App>, client: Client, feed: Feed, synced: Condition, token: CancellationToken) {
    let mut listed = BTreeSet::<PodUid>::new();
    let mut epoch = 0;
    // pods that end leave the selection, which the API server reports as a deletion
    let fields = Some("status.phase!=Succeeded,status.phase!=Failed");
    follow(Api::<Guarded<GroupedPod>>::all(client), fields, feed, token, |event| match event {
        Event::Init => {
            listed.clear();
            epoch = app.cluster.begin_pods();
        }
        Event::InitApply(pod) => {
            if let Some(uid) = pod.meta().uid.as_deref().map(PodUid::from) {
                app.cluster.list_pod(&uid);
                app.cluster.keep_pod(&uid);
                listed.insert(uid);
            }
            apply(&app, pod);
        }
        Event::Apply(pod) => {
            apply(&app, pod);
        }
        Event::Delete(pod) => {
            if let Some(uid) = pod.meta().uid.as_deref() {
                app.intents.drop(&uid.into());
                app.refused.forget(&uid.into());
                if app.cluster.delete_pod(&uid.into()) {
                    let pod = reference(&pod);
                    tracing::info!(%pod, uid, "ended: its GPUs are free");
                }
            }
        }
        Event::InitDone => {
            app.cluster.finish_pods(epoch, &listed);
            listed = BTreeSet::new();
            synced.set(true);
        }
    })
    .await;
}

/// Follows all disruption budgets until the token is cancelled. Readiness does not wait for them: while they are not
/// known, preempt evicts only the scheduler's victims.
pub(crate) async fn budgets(app: Arc<App>, client: Client, feed: Feed, token: CancellationToken) {
    let mut listing = Listed::new();
    follow(Api::<Guarded<PodDisruptionBudget>>::all(client), None, feed, token, |event| match event {
        Event::Init => listing.clear(),
        Event::InitApply(budget) => {
            if let Some((name, budget)) = budget.readable().and_then(|budget| k8s::budget(&budget)) {
                listing.insert(name, Arc::new(budget));
            }
        }
        Event::Apply(budget) => {
            if let Some((name, budget)) = budget.readable().and_then(|budget| k8s::budget(&budget)) {
                app.budgets.apply(name, Some(budget));
            }
        }
        Event::Delete(budget) => {
            let metadata = budget.meta();
            if let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) {
                app.budgets.apply(PodRef::new(namespace.as_str(), name.as_str()), None);
            }
        }
        Event::InitDone => app.budgets.replace(std::mem::take(&mut listing)),
    })
    .await;
}

fn apply(app: &App, pod: Guarded<GroupedPod>) {
    if let (Err(unreadable), Some(uid)) = (&pod.0, pod.meta().uid.as_deref()) {
        let name = reference(&pod);
        if let Some(node) = unreadable.node.as_deref() {
            app.cluster.apply_unreadable(&uid.into(), &name, &node.into());
        }
    }
    let Some(GroupedPod { pod, group }) = pod.readable() else { return };
    let Some(view) = k8s::pod(&pod, &app.keys).filter(|view| !app.cluster.is_gone(&view.uid)) else { return };
    let (uid, name, node) = (view.uid.clone(), view.pod.clone(), view.node.clone());
    let holding = view.holding.clone();
    if !view.ended {
        let host = k8s::requested(&pod);
        let shape = Shape::of(view.demand(), host.cpu, host.memory);
        let resident = k8s::resident(&pod);
        app.cluster.apply_sighting(&uid, &Sighting { shape: &shape, node: node.as_ref(), resident });
    }
    let home = node.as_ref().filter(|_| !view.ended);
    let applied = app.cluster.apply_pod(view, &app.clock);
    if let Some(node) = home {
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
        app.cluster.apply_standing(&uid, node, priority, || k8s::standing(&pod));
    }
    if let Some(node) = home
        && let Some(resource) = k8s::held_elsewhere(&pod, &app.keys)
        && app.cluster.apply_foreign(&uid, node)
    {
        tracing::warn!(
            %node, pod = %name, resource, domain = %app.keys.domain,
            "pods of another resource domain hold GPUs of the node: it takes no pod until they have ended; drain it"
        );
    }
    if node.is_some() {
        app.intents.drop(&uid);
        app.refused.forget(&uid);
    }
    let node = node.as_ref().map(tracing::field::display);
    match applied {
        Applied::Unreadable(Seen::New | Seen::Drift) => {
            app.metrics.unreadable.inc();
            let why = holding.map(unplaced).unwrap_or_default();
            tracing::warn!(pod = %name, %uid, node, why, "GPUs of a bound pod are not known");
        }
        Applied::Seen(Seen::Drift) => {
            app.metrics.drift.inc();
            tracing::info!(pod = %name, %uid, node, "GPU placement differs from the known one; adopted");
        }
        Applied::Unrecorded(Seen::New) => {
            tracing::debug!(pod = %name, %uid, node, "GPU shares without a record; taken of every GPU that is offered as such");
        }
        Applied::Seen(_) | Applied::Unreadable(_) | Applied::Unrecorded(_) | Applied::Nothing => {}
    }
    if node.is_none() {
        app.cluster.apply_queued(&uid, Queued::of(&pod, group.as_deref()));
    }
}

/// Why a bound pod is not counted by its record, and what it is counted by instead.
fn unplaced(holding: Holding) -> String {
    let counted = match holding.request.is_unreadable() {
        true => "its amounts cannot be read: every GPU of its node counts as full",
        false => "it takes its amounts of every GPU of its node",
    };
    match holding.record {
        Record::Unreadable(why) => format!("placement {why}; {counted}"),
        Record::Placed(_) | Record::Absent => format!("no placement is recorded; {counted}"),
    }
}

fn reference(pod: &impl Resource) -> PodRef {
    PodRef::new(pod.meta().namespace.as_deref().unwrap_or_default(), name(pod).unwrap_or_default())
}

fn name(object: &impl Resource) -> Option<&str> {
    object.meta().name.as_deref()
}
