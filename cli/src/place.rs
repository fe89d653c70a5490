//! Where a pod would go: the live extender's planner over a cluster, and before it those rules of kube-scheduler that
//! decide whether the extender is asked at all.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use kerf::ids::{NodeName, PodUid};
use kerf::k8s;
use kerf::placement::advise::{Circumstances, Placing};
use kerf::placement::shape::{HostAmount, Shape};
use kerf::placement::survey::{Sighting, Survey};
use kerf::placement::{Planner, scores};
use kerf::plan::Plan;
use kerf::request::PodRequest;
use kerf::unfit::Unfit;
use kerf::units::Timestamp;

use crate::cluster::{Cluster, Node};

/// A cluster in which pods are placed and taken out without changing the real one.
#[derive(Clone)]
pub struct Trial {
    pub nodes: BTreeMap<NodeName, Node>,
    survey: Survey,
}

/// A node where the pod fits.
pub struct Fit {
    pub node: NodeName,
    /// From 0 to 10.
    pub score: u8,
    pub plan: Plan,
}

/// Why a node does not take the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It has too little of this resource of the host.
    Host(&'static str),
    /// Not the labels of the pod's nodeSelector.
    Selector,
    /// A taint, or that it is cordoned or being deleted; in kube-scheduler's words.
    Closed(String),
    /// Its GPUs.
    Gpus(Unfit),
}

/// As kube-scheduler and the extender say it.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(resource) => write!(f, "Insufficient {resource}"),
            Self::Selector => f.write_str("node does not have the labels of the pod's nodeSelector"),
            Self::Closed(words) => f.write_str(words),
            Self::Gpus(unfit) => unfit.fmt(f),
        }
    }
}

/// What every node says of a pod.
#[derive(Default)]
pub struct Found {
    /// Nodes where the pod fits, the best first.
    pub fitting: Vec<Fit>,
    /// Nodes where it does not, by name.
    pub unfit: Vec<(NodeName, Cause)>,
}

impl Trial {
    pub fn of(cluster: &Cluster) -> Self {
        Self { nodes: cluster.nodes.clone(), survey: cluster.survey.clone() }
    }

    /// Asks every node. What the pod holds itself does not block it.
    pub fn find(&mut self, pod: &Pod, placing: Placing<'_>) -> Found {
        let Self { nodes, survey } = self;
        let uid = PodUid::from(pod.metadata.uid.as_deref().unwrap_or_default());
        let asking = Asking::of(pod);
        let shape = Shape::of(Some(placing.request), asking.host.cpu, asking.host.memory);
        let (mut plans, mut ranked, mut unfit) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (name, node) in &*nodes {
            // kube-scheduler does not ask the extender about such a node
            let elsewhere = !node.ledger.commitments().contains_key(&uid);
            if let Some(cause) = asking.closed(node, survey.left(name.as_str()).filter(|_| elsewhere)) {
                unfit.push((name.clone(), cause));
                continue;
            }
            let without = (!elsewhere).then(|| node.ledger.without(|other| *other == uid));
            let ledger = without.as_ref().unwrap_or(&node.ledger);
            let mut planner = match placing.surveys() {
                true => placing.planner(survey, &shape, name.as_str()),
                false => Planner::default(),
            };
            match planner.plan(ledger, placing.request, placing.policy) {
                Ok(plan) => {
                    let circumstances = Circumstances { elsewhere, failing: node.failing };
                    ranked.push((name.as_str(), Some(placing.rank(&mut planner, ledger, circumstances, &[]))));
                    plans.insert(name.clone(), plan);
                }
                Err(why) => unfit.push((name.clone(), Cause::Gpus(why))),
            }
        }
        if placing.surveys() {
            placing.weigh(survey, &shape, &mut ranked, |_| None);
        }
        let mut ranked: Vec<_> = ranked.into_iter().filter_map(|(name, rank)| Some((rank?, name))).collect();
        let fitting = scores(&mut ranked).into_iter().filter_map(|(name, score)| {
            let (node, plan) = plans.remove_entry(name)?;
            Some(Fit { node, score, plan })
        });
        Found { fitting: fitting.collect(), unfit }
    }

    /// The pod goes to a node, with these GPUs.
    pub fn put(&mut self, pod: &PodRequest, object: &Pod, node: &NodeName, plan: Plan) {
        let host = k8s::requested(object);
        let shape = Shape::of(Some(&pod.request), host.cpu, host.memory);
        if let Some(known) = self.nodes.get_mut(node) {
            known.ledger.reserve(pod, plan, Timestamp::default(), 0);
            self.survey.cards(node, &known.ledger);
        }
        self.survey.seen(&pod.uid, &Sighting { shape: &shape, node: Some(node), resident: false });
    }

    /// The pod goes away, with what it holds.
    pub fn take_out(&mut self, uid: &PodUid) {
        for (name, node) in &mut self.nodes {
            node.ledger.foreign_ends(uid);
            if node.ledger.release(uid) {
                self.survey.cards(name, &node.ledger);
            }
        }
        self.survey.unload(uid);
    }
}

/// What a pod asks of kube-scheduler, as far as it is looked at.
pub struct Asking<'a> {
    host: HostAmount,
    tolerations: Box<[k8s_openapi::api::core::v1::Toleration]>,
    pod: &'a Pod,
}

impl<'a> Asking<'a> {
    pub fn of(pod: &'a Pod) -> Self {
        Self { host: k8s::requested(pod), tolerations: k8s::tolerations(pod), pod }
    }

    /// Why kube-scheduler itself leaves a node out; `left` is what it has beside GPUs, where that is known.
    pub fn closed(&self, node: &Node, left: Option<HostAmount>) -> Option<Cause> {
        if let Some(short) = left.and_then(|left| short(left, self.host)) {
            return Some(Cause::Host(short));
        }
        let selector = self.pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
        if selector.into_iter().flatten().any(|(key, value)| node.labels.get(key) != Some(value)) {
            return Some(Cause::Selector);
        }
        node.taints.close(&self.tolerations).map(|closed| Cause::Closed(closed.to_string()))
    }
}

/// The host resource that a node has too little of.
fn short(left: HostAmount, wanted: HostAmount) -> Option<&'static str> {
    let resources = [
        ("cpu", left.cpu < wanted.cpu),
        ("memory", left.memory < wanted.memory),
        ("pods", left.pods < wanted.pods),
    ];
    resources.into_iter().find(|(_, short)| *short).map(|(resource, _)| resource)
}
