//! What an Allocate is answered from, or why it cannot be answered.

use kerf::ids::{DeviceId, PodRef};
use kerf::isolation::Isolation;
use kerf::plan::ContainerGrant;
use kerf::units::Milli;
use kerf_runtime::failure::Failure;

use crate::allocation::{Decision, Evidence, Key, OtherDomain};
use crate::device::ids::Resource;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The container that the call was matched to.
    pub key: Key,
    pub reference: PodRef,
    /// The GPUs, named as this node knows them now.
    pub grant: ContainerGrant,
    /// The ceiling for bursts, where the pod asked for one.
    pub limit: Option<Milli>,
    /// The user that the container says it runs as.
    pub user: Option<u32>,
    /// The least isolation that the pod demands.
    pub demanded: Isolation,
    /// Why the call was matched to this container.
    pub decision: Decision,
}

impl Answer {
    /// Whether these ids were answered before, with the same content.
    pub fn repeated(&self) -> bool {
        self.decision.evidence == Evidence::SameIds
    }
}

/// Why an Allocate cannot be answered. kubelet then fails the pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No pod of this node waits for this amount.
    #[error("no pod bound to this node has a placement that waits for {units} units of {resource}")]
    NobodyWaits { resource: String, units: u64 },
    /// kubelet is admitting a pod that waits for this amount and has no trusted placement.
    #[error(
        "pod {pod} is on this node without a placement by kerf: it must be bound by kerf's extender, not by another scheduler or spec.nodeName"
    )]
    NotPlaced {
        pod: PodRef,
        /// Whether kubelet's list, asked for during this call, names this pod. Otherwise the pod is a guess.
        listed: bool,
    },
    /// kubelet does not say which pod it is admitting, and those that wait for this amount need different GPUs.
    #[error(
        "kubelet does not say which pod it is admitting, and pods with unlike needs wait for {units} units of {resource}"
    )]
    Ambiguous { resource: String, units: u64 },
    /// Pods of another resource domain hold GPUs of this node.
    #[error(transparent)]
    OtherDomain(OtherDomain),
    /// No known pod waits for this amount, and the API server does not say whether another does.
    #[error("{}: {failure}", if failure.refused() { "the API server refuses this plugin" } else { "the API server cannot be asked about this node's pods" })]
    NoAnswer {
        /// Why the API server did not answer.
        failure: Failure,
    },
    /// The placement names a GPU that this node does not have.
    #[error("pod {pod} was placed on GPU {device}, which this node does not have")]
    NoSuchCard { pod: PodRef, device: DeviceId },
    #[error("pod {pod} was placed on GPU {device}, which is unhealthy")]
    Unhealthy { pod: PodRef, device: DeviceId },
    /// The GPU's shares are not enforced as the pod demands.
    #[error("pod {pod} requires isolation {demanded}, but shares of GPU {device} have {found}")]
    Isolation { pod: PodRef, device: DeviceId, demanded: Isolation, found: Isolation },
    /// Other pods hold too much of the GPU.
    #[error("pod {pod} was placed on GPU {device}, which has no room for it")]
    Overcommitted { pod: PodRef, device: DeviceId },
}

kerf::words! {
    /// The label values in metrics.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Code {
        NobodyWaits = "nobody-waits",
        NotPlaced = "not-placed",
        OtherDomain = "other-domain",
        Ambiguous = "ambiguous",
        NoApi = "no-api",
        NoSuchCard = "no-such-card",
        Unhealthy = "unhealthy",
        Isolation = "isolation",
        Overcommitted = "overcommitted",
    }
}

impl Refusal {
    pub(super) fn nobody(resource: &Resource, units: u64) -> Self {
        Self::NobodyWaits { resource: resource.as_str().to_owned(), units }
    }

    /// The container is gone since it was matched.
    pub(super) fn unknown() -> Self {
        Self::nobody(&Resource::Core, 0)
    }

    /// Whether asking the API server and kubelet again cannot change it.
    pub fn settled(&self) -> bool {
        matches!(self, Self::NotPlaced { listed: true, .. })
    }

    /// The pod that is refused, where that is certain.
    pub fn pod(&self) -> Option<&PodRef> {
        match self {
            Self::NotPlaced { pod, listed: true }
            | Self::NoSuchCard { pod, .. }
            | Self::Unhealthy { pod, .. }
            | Self::Isolation { pod, .. }
            | Self::Overcommitted { pod, .. } => Some(pod),
            Self::NotPlaced { .. }
            | Self::NobodyWaits { .. }
            | Self::Ambiguous { .. }
            | Self::OtherDomain(_)
            | Self::NoAnswer { .. } => None,
        }
    }

    /// Whether the node is to blame: any other pod that is placed like this one would be refused as well.
    pub fn of_node(&self) -> bool {
        match self {
            Self::Ambiguous { .. }
            | Self::NoAnswer { .. }
            | Self::OtherDomain(_)
            | Self::NoSuchCard { .. }
            | Self::Isolation { .. }
            | Self::Overcommitted { .. } => true,
            // that pod has no placement; and GPUs become unhealthy while pods are on their way, which the inventory
            // shows
            Self::NobodyWaits { .. } | Self::NotPlaced { .. } | Self::Unhealthy { .. } => false,
        }
    }

    /// The label value in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NobodyWaits { .. } => Code::NobodyWaits.as_str(),
            Self::NotPlaced { .. } => Code::NotPlaced.as_str(),
            Self::OtherDomain(_) => Code::OtherDomain.as_str(),
            Self::Ambiguous { .. } => Code::Ambiguous.as_str(),
            Self::NoAnswer { .. } => Code::NoApi.as_str(),
            Self::NoSuchCard { .. } => Code::NoSuchCard.as_str(),
            Self::Unhealthy { .. } => Code::Unhealthy.as_str(),
            Self::Isolation { .. } => Code::Isolation.as_str(),
            Self::Overcommitted { .. } => Code::Overcommitted.as_str(),
        }
    }
}
