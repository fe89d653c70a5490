//! kubelet's list of pods, as values.

use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::{ContainerName, DeviceId, PodRef};
use kerf::units::Share;

use crate::device::ids::{Ids, Resource};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// All pods, also those that hold nothing (yet).
    pub pods: BTreeSet<PodRef>,
    /// Containers that hold ids.
    pub held: Vec<ContainerResources>,
    /// A pod that holds GPUs of this node under another resource domain.
    pub other_domain: Option<OtherDomain>,
}

/// A pod that was given GPUs of this node under another resource domain than this plugin serves. Its GPUs are not
/// counted anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pod {pod} holds cards of this node under {resource}: the node takes no pods until those of the other resource domain have ended; drain it first"
)]
pub struct OtherDomain {
    pub pod: PodRef,
    /// The full name of the other domain's resource.
    pub resource: String,
}

/// The ids that one container holds, by kubelet's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerResources {
    /// kubelet does not tell the pod's uid.
    pub pod: PodRef,
    pub container: ContainerName,
    /// Each set of ids has at least one.
    pub ids: BTreeMap<Resource, Ids>,
}

/// A container on the list, as it is counted where no record tells which GPUs it has.
#[derive(Clone, Debug)]
pub(super) struct ListedContainer {
    pub(super) pod: PodRef,
    pub(super) container: ContainerName,
    pub(super) core: Ids,
    /// The GPU, the container's share of it, and whether no other container can have a share of it by memory.
    pub(super) cards: Vec<(DeviceId, Share, bool)>,
}
