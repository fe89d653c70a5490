//! What kubelet's list of pods says, as values.

use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::{ContainerName, DeviceId, PodRef};
use kerf::units::Share;

use crate::device::ids::{Ids, Resource};

/// kubelet's list of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// All pods, also those that hold nothing (yet).
    pub pods: BTreeSet<PodRef>,
    /// Containers that hold something.
    pub held: Vec<ContainerResources>,
    /// A pod that holds GPUs of this node under another resource domain.
    pub other_domain: Option<OtherDomain>,
}

/// A pod that was given GPUs of this node under another resource domain than this process serves: what it holds is
/// counted by nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pod {pod} holds cards of this node under {resource}: the node takes no pods until those of the other resource domain have ended; drain it first"
)]
pub struct OtherDomain {
    pub pod: PodRef,
    /// The resource of its domain.
    pub resource: String,
}

/// What kubelet says that one container holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerResources {
    /// The pod's name; kubelet does not tell its uid.
    pub pod: PodRef,
    pub container: ContainerName,
    /// None is empty.
    pub ids: BTreeMap<Resource, Ids>,
}

/// A container on the list, as it counts where no record tells which GPUs it has.
#[derive(Clone, Debug)]
pub(super) struct ListedContainer {
    pub(super) pod: PodRef,
    pub(super) container: ContainerName,
    pub(super) core: Ids,
    /// What it has of which GPUs, and whether nobody else can have a share of them by memory.
    pub(super) cards: Vec<(DeviceId, Share, bool)>,
}
