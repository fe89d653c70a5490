//! Why an Allocate cannot be answered.

use kerf::ids::{DeviceId, PodRef};
use kerf::isolation::Isolation;
use kerf_runtime::failure::Failure;

use crate::allocation::kubelet_list::OtherDomain;
use crate::device::ids::Resource;

/// Why an Allocate cannot be answered. kubelet then fails the pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No pod of this node waits for this amount.
    #[error("no pod bound to this node has a placement that waits for {units} units of {resource}")]
    NobodyWaits {
        /// The resource of the call: `core` or `memory`.
        resource: String,
        /// Its amount.
        units: u64,
    },
    /// kubelet is at a pod that waits for this amount and on which no placement is recorded that can be believed.
    #[error(
        "pod {pod} is on this node without a placement by kerf: it must be bound by kerf's extender, not by another scheduler or spec.nodeName"
    )]
    NotPlaced {
        /// The pod.
        pod: PodRef,
        /// Whether kubelet's list, asked for during this call, says that it is at this pod. Otherwise that is a guess.
        listed: bool,
    },
    /// kubelet does not say which pod it is at, and those that wait for this amount need different cards.
    #[error(
        "kubelet does not say which pod it is at, and pods with unlike needs wait for {units} units of {resource}"
    )]
    Ambiguous {
        /// The resource of the call: `core` or `memory`.
        resource: String,
        /// Its amount.
        units: u64,
    },
    /// Pods of another resource domain hold cards of this node.
    #[error(transparent)]
    OtherDomain(OtherDomain),
    /// No known pod waits for this amount, and the API server does not say whether another does.
    #[error("{}: {failure}", if failure.refused() { "the API server refuses this plugin" } else { "the API server cannot be asked about this node's pods" })]
    NoAnswer {
        /// What the question met with.
        failure: Failure,
    },
    /// The placement names a card that is not here.
    #[error("pod {pod} was placed on GPU {device}, which this node does not have")]
    NoSuchCard {
        /// The pod.
        pod: PodRef,
        /// The card that was named.
        device: DeviceId,
    },
    /// The card is ill.
    #[error("pod {pod} was placed on GPU {device}, which is unhealthy")]
    Unhealthy {
        /// The pod.
        pod: PodRef,
        /// The card.
        device: DeviceId,
    },
    /// The card's shares are not enforced as the pod demands.
    #[error("pod {pod} demands isolation {demanded}, and shares of GPU {device} have {found}")]
    Isolation {
        /// The pod.
        pod: PodRef,
        /// The card.
        device: DeviceId,
        /// What the pod demands.
        demanded: Isolation,
        /// What the card has.
        found: Isolation,
    },
    /// Others hold too much of the card.
    #[error("pod {pod} was placed on GPU {device}, which has no room for it")]
    Overcommitted {
        /// The pod.
        pod: PodRef,
        /// The card.
        device: DeviceId,
    },
}

impl Refusal {
    pub(super) fn nobody(resource: &Resource, units: u64) -> Self {
        Self::NobodyWaits { resource: resource.as_str().to_owned(), units }
    }

    /// Whether asking the API server and kubelet once more cannot change it.
    pub fn settled(&self) -> bool {
        matches!(self, Self::NotPlaced { listed: true, .. })
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
            // nobody placed that pod; and cards fall ill while pods are on their way, which the inventory says
            Self::NobodyWaits { .. } | Self::NotPlaced { .. } | Self::Unhealthy { .. } => false,
        }
    }

    /// The word used in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NobodyWaits { .. } => "nobody-waits",
            Self::NotPlaced { .. } => "not-placed",
            Self::OtherDomain(_) => "other-domain",
            Self::Ambiguous { .. } => "ambiguous",
            Self::NoAnswer { .. } => "no-api",
            Self::NoSuchCard { .. } => "no-such-card",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Isolation { .. } => "isolation",
            Self::Overcommitted { .. } => "overcommitted",
        }
    }
}
