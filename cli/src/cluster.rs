//! A cluster as kerf's extender sees it: made of its Nodes and Pods, by the extender's own rules. Pure: whoever has the
//! objects, from a file or from the API server, gives them to a [`Builder`].

mod identities;
mod node;
mod notes;
mod plugin;
mod replicas;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kerf::annotation::isolation::{self, Levels};
use kerf::annotation::{Keys, Record};
use kerf::ids::{NodeName, PodRef};
use kerf::k8s::{self, PodView};
use kerf::ledger::NodeLedger;
use kerf::placement::advise::UNBOUND_RECORD_MS;
use kerf::placement::shape::Shape;
use kerf::placement::survey::{Sighting, Survey};
use kerf::plan::Placement;
use kerf::request::PodRequest;
use kerf::units::Timestamp;

use identities::Identities;
pub use identities::Nameless;
pub use node::Node;
pub use notes::{notes, trouble};
pub use plugin::Plugin;
pub use replicas::Replicas;

/// A cluster has pods always, those of its control plane and of kerf at least.
const NO_PODS: &str =
    "the snapshot has no pods, so every GPU looks free: take it by kubectl get nodes,pods --all-namespaces";

/// What an extender would know after it had seen the same objects.
#[derive(Debug)]
pub struct Cluster {
    /// Names of its resources and annotations.
    pub keys: Keys,
    /// By name; with those that only pods name.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Pods that ask for GPUs or hold some, those that have ended as well, by namespace and name.
    pub pods: Vec<GpuPod>,
    /// With all pods.
    pub survey: Survey,
    /// The schedulers of kerf, and which is in use.
    pub replicas: Replicas,
    /// Pods that may be kerf's plugins.
    pub plugins: Vec<Plugin>,
    /// Annotations and resources that nodes have under other resource domains.
    others: BTreeSet<String>,
    /// Whether there was any pod.
    has_pods: bool,
}

/// A pod that asks for GPUs or holds some.
#[derive(Clone, Debug)]
pub struct GpuPod {
    /// As the domain reads it.
    pub view: PodView,
    /// The object, without `metadata.managedFields`.
    pub object: Pod,
}

impl GpuPod {
    /// What enforces the shares of its containers, as its node says; empty where it has not.
    pub fn levels(&self, keys: &Keys) -> Levels {
        let annotations = self.object.metadata.annotations.as_ref();
        let text = annotations.and_then(|annotations| annotations.get(&keys.isolated));
        text.and_then(|text| isolation::decode(text).ok()).unwrap_or_default()
    }
}

impl Cluster {
    /// What the cluster as a whole lacks: GPUs, with an explanation if there is one, or pods.
    pub fn note(&self) -> Option<String> {
        let others: Vec<&str> = self.others.iter().map(String::as_str).collect();
        let none = self.nodes.values().all(|node| node.ledger.cards().is_empty());
        if none && !others.is_empty() {
            let domain = &self.keys.domain;
            return Some(format!("no GPUs under {domain}; the nodes have {}: see --domain", others.join(" and ")));
        }
        (!self.has_pods).then(|| NO_PODS.to_owned())
    }

    /// The pod of this namespace and name, if it asks for GPUs.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&GpuPod> {
        let at = self.pods.binary_search_by(|own| {
            let PodRef { namespace: own_namespace, name: own_name } = &own.view.pod;
            (&**own_namespace, &**own_name).cmp(&(namespace, name))
        });
        at.ok().and_then(|at| self.pods.get(at))
    }

    fn ledger(&mut self, node: &NodeName) -> &mut NodeLedger {
        &mut self.nodes.entry(node.clone()).or_default().ledger
    }
}

/// Makes a [`Cluster`] of objects, in any order.
#[derive(Debug)]
pub struct Builder {
    cluster: Cluster,
    identities: Identities,
    /// Records of pods that are not bound yet.
    promised: Vec<(PodRequest, Placement)>,
    now: Duration,
}

impl Builder {
    /// `now`: the time since 1970, which decides whether a record of a pod that is not bound is recent.
    pub fn new(keys: Keys, now: Duration) -> Self {
        let cluster = Cluster {
            keys,
            nodes: BTreeMap::new(),
            pods: Vec::new(),
            survey: Survey::default(),
            replicas: Replicas::default(),
            plugins: Vec::new(),
            others: BTreeSet::new(),
            has_pods: false,
        };
        Self { cluster, identities: Identities::default(), promised: Vec::new(), now }
    }

    pub fn node(&mut self, object: &NodeObject) {
        let Self { cluster, .. } = self;
        cluster.others.extend(k8s::offered_elsewhere(object, &cluster.keys).map(str::to_owned));
        if let Some(view) = k8s::node(object, &cluster.keys) {
            cluster.survey.allocatable(&view.name, k8s::allocatable(object));
            let known = cluster.nodes.entry(view.name.clone()).or_default();
            view.tell(&mut known.ledger);
            known.learn(object);
        }
    }

    pub fn lease(&mut self, object: &Lease) {
        self.cluster.replicas.lease(object);
    }

    /// # Errors
    /// [`Nameless`] where the pod has no name, which the API server never sends.
    pub fn pod(&mut self, mut object: Pod) -> Result<(), Nameless> {
        let Self { cluster, identities, promised, now } = self;
        cluster.has_pods = true;
        identities.complete(&mut object.metadata)?;
        cluster.replicas.pod(&object);
        cluster.plugins.extend(Plugin::of(&object));
        let Some(view) = k8s::pod(&object, &cluster.keys) else { return Ok(()) };
        if !view.ended {
            count(cluster, &object, &view);
            if let (None, None, Ok(Some(request)), Record::Placed(placement)) =
                (&view.holding, &view.node, &view.request, &view.record)
                && is_recent(placement, *now)
            {
                promised.push((PodRequest::new(&view.uid, &view.pod, request), placement.clone()));
            }
        }
        if view.holding.is_some() || !matches!(view.request, Ok(None)) {
            object.metadata.managed_fields = None;
            cluster.pods.push(GpuPod { view, object });
        }
        Ok(())
    }

    pub fn finish(self) -> Cluster {
        let Self { mut cluster, promised, .. } = self;
        for (pod, placement) in promised {
            if let Some(node) = cluster.nodes.get_mut(&placement.node) {
                node.ledger.reserve(&pod, placement.plan, Timestamp::default(), 0);
            }
        }
        for (name, node) in &cluster.nodes {
            cluster.survey.cards(name, &node.ledger);
        }
        cluster.pods.sort_by(|a, b| (&a.view.pod, &a.view.uid).cmp(&(&b.view.pod, &b.view.uid)));
        cluster
    }
}

/// Counts what a pod takes that has not ended.
fn count(cluster: &mut Cluster, object: &Pod, view: &PodView) {
    let amount = k8s::requested(object);
    let shape = Shape::of(view.demand(), amount.cpu, amount.memory);
    let resident = k8s::resident(object);
    cluster.survey.seen(&view.uid, &Sighting { shape: &shape, node: view.node.as_ref(), resident });
    if let (Some(node), Some(_)) = (&view.node, k8s::held_elsewhere(object, &cluster.keys)) {
        cluster.ledger(node).foreign_begins(&view.uid);
    }
    if let Some(holding) = &view.holding {
        let pod = PodRequest::new(&view.uid, &view.pod, &holding.request);
        cluster.ledger(&holding.node).observe(&pod, holding.held(), view.confirmed, 0);
    }
}

/// Whether the GPUs of an unbound pod's record are kept for it. A record from the future was written before the time of
/// day was set back.
fn is_recent(placement: &Placement, now: Duration) -> bool {
    now.saturating_sub(Duration::from_nanos(placement.time)) < Duration::from_millis(UNBOUND_RECORD_MS)
}
