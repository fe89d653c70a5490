//! A pod of this node, as the API server shows it.

use std::collections::BTreeMap;

use kerf::annotation::isolation::Levels;
use kerf::ids::{ContainerName, NodeName, PodRef, PodUid};
use kerf::plan::Placement;
use kerf::request::GpuRequest;

/// One container of one life of one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub pod: PodUid,
    pub container: ContainerName,
}

/// A pod that asks for GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub uid: PodUid,
    pub reference: PodRef,
    /// The node it is bound to.
    pub node: NodeName,
    /// When it was created, in nanoseconds since 1970.
    pub created: u64,
    pub request: GpuRequest,
    /// The placement that its annotations carry now, where it can be believed.
    pub record: Option<Placement>,
    /// Whether `gpu-assigned` is `true` now.
    pub confirmed: bool,
    /// What its annotations say of its isolation now.
    pub isolated: Option<Levels>,
    pub stage: Stage,
    /// The users that containers say they run as, where they do. What an image says is not known here.
    pub users: BTreeMap<ContainerName, u32>,
    /// Ids that the container runtime gave, without their scheme, and the containers they belong to.
    pub runtime_ids: BTreeMap<String, ContainerName>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Pending or running.
    Live,
    /// Somebody asked for its deletion; it keeps its GPUs until it is gone.
    Terminating,
    /// Succeeded or Failed: its GPUs are free.
    Ended,
}

/// What the API server shows of any pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It asks for GPUs.
    Claimant(Box<Pod>),
    /// It asks for none.
    Other { uid: PodUid, reference: PodRef, stage: Stage },
    /// It is there, and cannot be read.
    Unreadable { uid: PodUid },
}

impl Seen {
    pub fn uid(&self) -> &PodUid {
        match self {
            Self::Claimant(pod) => &pod.uid,
            Self::Other { uid, .. } | Self::Unreadable { uid } => uid,
        }
    }
}
