//! One GPU and who holds it.

use std::collections::BTreeMap;

use kerf::ids::PodUid;
use kerf::ledger::{Card, Commitment, Held, NodeLedger, Offered};
use kerf::request::ContainerKind;
use serde::Serialize;

use super::amount::Amount;
use super::part::{Part, Shares, level, parts, perhaps};
use super::usage::{ContainerUse, GpuUse, Usage};
use crate::cluster::Cluster;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gpu {
    /// As the driver counts.
    pub index: u32,
    /// The vendor's UUID, or `index-N` on a node without kerf's plugin.
    pub uuid: String,
    pub model: String,
    pub memory_mib: u64,
    /// Null where it is not known.
    pub numa: Option<u32>,
    /// `healthy` or `unhealthy`.
    pub health: &'static str,
    /// By the annotation `gpu-cordon`, or since its node is being deleted.
    pub cordoned: bool,
    /// Whether it takes new pods.
    pub usable: bool,
    pub state: State,
    /// Whether it takes new pods and has none.
    pub empty: bool,
    /// Whether its pods hold more than it has.
    pub overcommitted: bool,
    /// What enforces shares on it: `none`, `limiter`, `mps`, `driver` or `mig`.
    pub isolation: &'static str,
    /// What its pods hold together.
    pub granted: Amount,
    pub free: Amount,
    /// What is measured; null where it is not known.
    pub used: Option<GpuUse>,
    /// Counted shares that it is offered as, by resource.
    pub offers: BTreeMap<String, Offered>,
    /// Each container that holds a part, by pod; and those that may, since their GPU is not known.
    pub holders: Vec<Holder>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Takes new pods.
    Ready,
    Unhealthy,
    Cordoned,
    /// Its node takes no pod: see the node's `trouble`.
    Closed,
}

/// A container that holds a part of a GPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Holder {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    /// `app`, `init` or `sidecar`: an init container holds it until it has ended.
    pub kind: &'static str,
    /// Whether the GPU is its own.
    pub whole: bool,
    /// What it was granted. Counted shares have no memory of their own.
    pub granted: Amount,
    /// Counted shares, if it has those.
    pub shares: Option<Shares>,
    /// What enforces its share; null where its node has not said it yet, and for whole GPUs.
    pub isolation: Option<&'static str>,
    /// What it uses of this GPU; null where it is not known.
    pub used: Option<ContainerUse>,
    /// False where it is counted on this GPU since it is not known which it has.
    pub certain: bool,
}

impl Gpu {
    pub(super) fn of(node: &str, ledger: &NodeLedger, card: &Card, cluster: &Cluster, usage: &Usage) -> Self {
        let device = card.device();
        let state = match device {
            device if device.cordoned => State::Cordoned,
            device if !device.usable() => State::Unhealthy,
            _ if !card.usable() => State::Closed,
            _ => State::Ready,
        };
        let mut holders: Vec<Holder> = ledger
            .commitments()
            .iter()
            .filter(|(_, known)| ledger.concerns(known))
            .flat_map(|(uid, known)| Holder::all(uid, known, card, cluster, usage))
            .collect();
        let key = |holder: &Holder| (!holder.certain, holder.namespace.clone(), holder.pod.clone());
        holders.sort_by_cached_key(key);
        let offers = card.offered().into_iter().map(|(name, offered)| (name.to_string(), offered));
        Self {
            index: device.index,
            uuid: device.id.to_string(),
            model: device.model.to_string(),
            memory_mib: device.memory.0,
            numa: device.numa,
            health: device.health.as_str(),
            cordoned: device.cordoned,
            usable: card.usable(),
            state,
            empty: card.untouched(),
            overcommitted: card.overcommitted(),
            isolation: device.isolation.as_str(),
            granted: card.used().into(),
            free: card.free().into(),
            used: usage.gpu(node, device.id.as_str()),
            offers: offers.collect(),
            holders,
        }
    }
}

impl Holder {
    /// The containers of one pod that hold a part of the card, or may.
    fn all(uid: &PodUid, known: &Commitment, card: &Card, cluster: &Cluster, usage: &Usage) -> Vec<Self> {
        let (namespace, pod) = (known.pod.namespace.to_string(), known.pod.name.to_string());
        let levels = cluster.pod(&namespace, &pod).map(|pod| pod.levels(&cluster.keys)).unwrap_or_default();
        let holder = |container: &str, kind: ContainerKind, part: Part| Self {
            namespace: namespace.clone(),
            pod: pod.clone(),
            uid: uid.to_string(),
            container: container.to_owned(),
            kind: kind.as_str(),
            whole: part.whole,
            granted: part.granted,
            shares: part.shares,
            isolation: level(&levels, container),
            used: usage.container((&namespace, &pod), container, card.device().id.as_str()),
            certain: part.certain,
        };
        match &known.held {
            Held::Plan(plan) => {
                let parts = plan.grants.iter().flat_map(|grant| {
                    let on_card = parts(&grant.gpus).into_iter().filter(|(device, _)| card.is(device));
                    on_card.map(move |(_, part)| (grant, part.on(card)))
                });
                parts.map(|(grant, part)| holder(grant.container.as_str(), grant.kind, part)).collect()
            }
            Held::Unreadable => {
                let may = known.request.containers.iter().filter_map(|own| Some((own, perhaps(&own.ask, card)?)));
                may.map(|(own, part)| holder(own.name.as_str(), own.kind, part)).collect()
            }
        }
    }
}
