//! A pod of this node, as the API server shows it.

use std::collections::BTreeMap;

use kerf::annotation::isolation::Levels;
use kerf::ids::{ContainerName, NodeName, PodRef, PodUid};
use kerf::plan::Placement;
use kerf::request::GpuRequest;

/// One container of one pod: a new pod of the same name has another key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub pod: PodUid,
    pub container: ContainerName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub uid: PodUid,
    pub reference: PodRef,
    pub node: NodeName,
    /// Nanoseconds since 1970.
    pub created: u64,
    pub request: GpuRequest,
    /// The placement in its annotations now, where it can be trusted.
    pub record: Option<Placement>,
    /// Whether `gpu-assigned` is `true` now.
    pub confirmed: bool,
    /// The isolation in its annotations now.
    pub isolated: Option<Levels>,
    pub stage: Stage,
    /// The users that containers say they run as, where they say so. An image's user is not known here.
    pub users: BTreeMap<ContainerName, u32>,
    /// Container ids of the runtime, without their scheme, and the containers they belong to.
    pub runtime_ids: BTreeMap<String, ContainerName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Live,
    /// Its deletion was requested; it keeps its GPUs until it is gone.
    Terminating,
    /// Succeeded or Failed: its GPUs are free.
    Ended,
}

/// What the API server shows of any pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It asks for GPUs.
    Claimant(Box<Pod>),
    /// It asks for no GPU.
    Other { uid: PodUid, reference: PodRef, stage: Stage },
    /// It exists, but cannot be read.
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
