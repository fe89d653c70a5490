//! One pod that asks for GPUs.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod as Object};
use kerf::k8s::PodView;
use kerf::ledger::{self, Basis, Card, Commitment, NodeLedger};
use kerf::plan::{DeviceRef, Hold, Plan, Taken};
use kerf::request::{Ask, ContainerRequest};
use serde::Serialize;

use super::amount::Amount;
use super::part::{Part, Shares, level, parts};
use super::usage::{ContainerUse, Usage};
use crate::cluster::{Cluster, GpuPod};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// RFC 3339.
    pub created: Option<String>,
    /// The controller, as `ReplicaSet/name`.
    pub owner: Option<String>,
    pub priority: i32,
    pub state: State,
    /// `status.phase`
    pub phase: String,
    /// What is said of it in one word, as by `kubectl get pods`: `Running`, `Terminating`, `CrashLoopBackOff`.
    pub status: String,
    /// Its node, or null.
    pub node: Option<String>,
    /// Why it has no node; null where it has one or has ended.
    pub waiting: Option<Waiting>,
    /// `status.message` of a pod that failed.
    pub message: Option<String>,
    /// The rule of kerf that its request breaks.
    pub refused: Option<String>,
    /// The policy that it asks for.
    pub policy: Option<&'static str>,
    /// The weakest isolation that it accepts.
    pub isolation: Option<&'static str>,
    /// Whether its node has confirmed the placement.
    pub confirmed: bool,
    /// By what it is counted on its node: `record`, `amounts` (on every GPU), `everything`; null where it holds nothing.
    pub counted_by: Option<&'static str>,
    /// What it was granted on all its GPUs together; zero where it is not known which it has.
    pub granted: Amount,
    /// What its containers use on all its GPUs together; null where nothing is measured.
    pub used: Option<ContainerUse>,
    /// Those that ask for GPUs, in kubelet's order.
    pub containers: Vec<Container>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has no node yet.
    Waiting,
    /// It has a node, and its containers do not have their GPUs yet.
    Placed,
    /// Its node has given its containers their GPUs.
    Running,
    /// `Succeeded` or `Failed`: it holds nothing.
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// `Unschedulable`, `SchedulingGated`, or `NotTried` where the scheduler has said nothing.
    pub reason: String,
    /// What the scheduler says.
    pub message: String,
    /// RFC 3339.
    pub since: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Container {
    pub name: String,
    /// `app`, `init` or `sidecar`.
    pub kind: &'static str,
    pub asks: Asked,
    /// What enforces its share; null where its node has not said it yet, and for whole GPUs.
    pub isolation: Option<&'static str>,
    /// Its GPUs; empty where it has none, or it is not known which.
    pub gpus: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Whole GPUs; 0 where it asks for a part of one.
    pub whole_gpus: u32,
    /// In thousandths of a GPU; 0 for counted shares.
    pub compute: u64,
    /// Null where it asks for none: a whole GPU has all of its memory.
    pub memory_mib: Option<u64>,
    pub shares: Option<Shares>,
}

/// A GPU of a container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grant {
    pub index: u32,
    pub uuid: String,
    /// Whether the pod's node does not list it.
    pub missing: bool,
    pub whole: bool,
    pub granted: Amount,
    pub shares: Option<Shares>,
    pub used: Option<ContainerUse>,
}

impl Pod {
    pub fn of(pod: &GpuPod, cluster: &Cluster, usage: &Usage) -> Self {
        let GpuPod { view, object } = pod;
        let node = view.node.as_ref().and_then(|node| cluster.nodes.get(node));
        let known = node.and_then(|node| node.ledger.commitments().get(&view.uid));
        let held = Held::by(view, cluster);
        let containers = containers(pod, held.as_ref(), cluster, usage);
        let grants = || containers.iter().flat_map(|container| &container.gpus);
        let metadata = &object.metadata;
        let asked = view.request.as_ref().ok().and_then(Option::as_deref);
        let phase = object.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let message = object.status.as_ref().and_then(|status| status.message.clone());
        Self {
            namespace: view.pod.namespace.to_string(),
            name: view.pod.name.to_string(),
            uid: view.uid.to_string(),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()),
            owner: owner(object),
            priority: object.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default(),
            state: State::of(pod),
            status: status(object, &phase),
            phase,
            node: view.node.as_ref().map(ToString::to_string),
            waiting: (view.node.is_none() && !view.ended).then(|| waiting(object)),
            message: message.filter(|_| view.ended),
            refused: view.request.as_ref().err().map(ToString::to_string),
            policy: asked.and_then(|request| request.policy).map(|policy| policy.as_str()),
            isolation: asked.and_then(|request| request.isolation).map(|level| level.as_str()),
            confirmed: view.confirmed && view.node.is_some(),
            counted_by: known.map(Commitment::basis).map(Basis::as_str),
            granted: held.map(|held| held.over_life()).unwrap_or_default(),
            used: used(grants()),
            containers,
        }
    }
}

impl Pod {
    /// Counts what is left of it, after GPUs were taken out.
    pub fn count_again(&mut self) {
        let grants = || self.containers.iter().flat_map(|container| &container.gpus);
        (self.granted, self.used) = (grants().map(|grant| grant.granted).sum(), used(grants()));
    }
}

impl State {
    fn of(pod: &GpuPod) -> Self {
        match &pod.view {
            view if view.ended => Self::Ended,
            view if view.node.is_none() => Self::Waiting,
            view if view.confirmed => Self::Running,
            _ => Self::Placed,
        }
    }
}

/// The sum over its GPUs of what is measured; `None` where nothing is.
fn used<'a>(grants: impl Iterator<Item = &'a Grant>) -> Option<ContainerUse> {
    let plus = |sum: Option<u64>, own: Option<u64>| own.map_or(sum, |own| Some(sum.unwrap_or_default() + own));
    grants.filter_map(|grant| grant.used).fold(None, |sum, own| {
        let sum = sum.unwrap_or_default();
        Some(ContainerUse {
            compute: plus(sum.compute, own.compute),
            memory_mib: plus(sum.memory_mib, own.memory_mib),
        })
    })
}

/// What a pod holds on its node by its record.
struct Held<'a> {
    plan: &'a Plan,
    ledger: &'a NodeLedger,
}

impl<'a> Held<'a> {
    fn by(pod: &PodView, cluster: &'a Cluster) -> Option<Self> {
        let ledger = &cluster.nodes.get(pod.node.as_ref()?)?.ledger;
        match &ledger.commitments().get(&pod.uid)?.held {
            ledger::Held::Plan(plan) => Some(Self { plan, ledger }),
            ledger::Held::Unreadable => None,
        }
    }

    /// The node's card of this name.
    fn card(&self, device: &DeviceRef) -> Option<&'a Card> {
        self.ledger.cards().iter().find(|card| card.is(device))
    }

    /// What the pod takes over its life: what an init container had, others may have after it.
    fn over_life(&self) -> Amount {
        let taken = |hold: Hold| match self.card(&hold.device) {
            Some(card) if matches!(hold.taken, Taken::Whole(_)) => card.device().capacity().max(hold.taken.share()),
            _ => hold.taken.share(),
        };
        self.plan.holds().into_iter().map(|hold| Amount::from(taken(hold))).sum()
    }

    /// The GPUs of the container at this place among those that ask for GPUs.
    fn grants(&self, pod: &PodView, at: usize, usage: &Usage) -> Vec<Grant> {
        let Some(own) = self.plan.grants.get(at) else { return Vec::new() };
        let grant = |(device, part): (&DeviceRef, Part)| {
            let card = self.card(device);
            let (index, uuid) =
                card.map_or((device.index, &device.id), |card| (card.device().index, &card.device().id));
            let part = card.map_or(part.clone(), |card| part.on(card));
            Grant {
                index,
                uuid: uuid.to_string(),
                missing: card.is_none(),
                whole: part.whole,
                granted: part.granted,
                shares: part.shares,
                used: usage.container((&pod.pod.namespace, &pod.pod.name), own.container.as_str(), uuid.as_str()),
            }
        };
        parts(&own.gpus).into_iter().map(grant).collect()
    }
}

/// Those that ask for GPUs, with what they hold.
fn containers(pod: &GpuPod, held: Option<&Held<'_>>, cluster: &Cluster, usage: &Usage) -> Vec<Container> {
    let GpuPod { view, .. } = pod;
    let request = view.holding.as_ref().map(|holding| &holding.request);
    let request = request.or_else(|| view.request.as_ref().ok().and_then(Option::as_ref));
    let levels = pod.levels(&cluster.keys);
    let container = |(at, own): (usize, &ContainerRequest)| Container {
        name: own.name.to_string(),
        kind: own.kind.as_str(),
        asks: Asked::of(&own.ask),
        isolation: level(&levels, own.name.as_str()),
        gpus: held.map(|held| held.grants(view, at, usage)).unwrap_or_default(),
    };
    request.into_iter().flat_map(|request| request.containers.iter().enumerate().map(container)).collect()
}

impl Asked {
    pub(crate) fn of(ask: &Ask) -> Self {
        match ask {
            Ask::Share(share) => Self {
                whole_gpus: 0,
                compute: share.compute.0.into(),
                memory_mib: Some(share.memory.0),
                shares: None,
            },
            Ask::Whole { count, memory } => Self {
                whole_gpus: *count,
                compute: u64::from(*count) * 1000,
                memory_mib: memory.map(|memory| memory.0),
                shares: None,
            },
            Ask::Counted(counted) => Self {
                whole_gpus: 0,
                compute: 0,
                memory_mib: None,
                shares: Some(Shares { resource: counted.resource.to_string(), count: counted.count }),
            },
        }
    }
}

fn owner(pod: &Object) -> Option<String> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(format!("{}/{}", owner.kind, owner.name))
}

/// The word of `kubectl get pods`, without the details of init containers.
fn status(pod: &Object, phase: &str) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let Some(status) = &pod.status else { return phase.to_owned() };
    if let Some(reason) = status.reason.as_deref().filter(|reason| !reason.is_empty()) {
        return reason.to_owned();
    }
    let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let told = |own: &ContainerStatus| {
        let state = own.state.as_ref()?;
        let waits = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        let failed = || state.terminated.as_ref().filter(|own| own.exit_code != 0)?.reason.clone();
        waits.or_else(failed)
    };
    let reason = { statuses }.find_map(told).filter(|reason| !reason.is_empty());
    match reason {
        Some(reason) => reason,
        None if phase == "Succeeded" => "Completed".to_owned(),
        None => phase.to_owned(),
    }
}

fn waiting(pod: &Object) -> Waiting {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let scheduled = { conditions }.find(|own| own.type_ == "PodScheduled" && own.status == "False");
    match scheduled {
        Some(condition) => Waiting {
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
            since: condition.last_transition_time.as_ref().map(|time| time.0.to_string()),
        },
        None => Waiting { reason: "NotTried".to_owned(), message: String::new(), since: None },
    }
}
