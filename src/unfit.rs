//! Why a pod does not fit on a node.

use std::fmt;

/// The texts are few and have no amounts: the scheduler counts equal ones in the pod's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// The extender has never seen this node.
    UnknownNode,
    NoCards,
    UnreadableInventory,
    /// kerf's plugin serves the node, and its inventory is gone.
    LostInventory,
    TooManyCards,
    /// Pods on the node hold cards under another resource domain; which cards is not known.
    OtherDomain,
    /// The pod is already on the node, and its record cannot be read.
    UnreadableRecord,
    /// No card enforces shares as strictly as the pod asks for.
    Isolation,
    /// A share needs more memory than any card of the node has.
    CardTooSmall,
    /// The node has fewer cards than one container needs, or less memory on that many.
    TooFewCards,
    /// Every card is unhealthy or cordoned.
    NoHealthyCard,
    /// No card has enough free compute.
    Compute,
    /// No card has enough free memory.
    Memory,
    /// One card has enough compute, another has enough memory, none has both.
    Split,
    /// Not enough cards are free as a whole.
    Cards,
    /// No card of the node is offered as shares of the resource that the pod asks for.
    NotOffered,
    /// Even with all cards free there are too few shares, or too few in the arrangement that the pod asks for.
    TooFewShares,
    Shares,
    /// Enough shares are free, but not in the arrangement that the pod asks for.
    Arrangement,
}

impl Unfit {
    /// For metrics that start at zero.
    pub const ALL: [Self; 19] = [
        Self::UnknownNode,
        Self::NoCards,
        Self::UnreadableInventory,
        Self::LostInventory,
        Self::TooManyCards,
        Self::OtherDomain,
        Self::UnreadableRecord,
        Self::Isolation,
        Self::CardTooSmall,
        Self::TooFewCards,
        Self::NoHealthyCard,
        Self::Compute,
        Self::Memory,
        Self::Split,
        Self::Cards,
        Self::NotOffered,
        Self::TooFewShares,
        Self::Shares,
        Self::Arrangement,
    ];

    /// The text that users see in the pod's event.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UnknownNode => "node is unknown to the GPU extender",
            Self::NoCards => "no GPU device",
            Self::UnreadableInventory => "GPU inventory of the node cannot be read",
            Self::LostInventory => "GPU inventory of the node is missing",
            Self::TooManyCards => "node has more than 64 GPUs",
            Self::OtherDomain => "pods of another resource domain hold GPUs of the node",
            Self::UnreadableRecord => "GPU placement of the pod cannot be read",
            Self::Isolation => "no GPU of the node has the isolation that the pod demands",
            Self::CardTooSmall => "vcuda-memory is larger than any GPU of the node",
            Self::TooFewCards => "node has too few GPUs, or too little memory on them",
            Self::NoHealthyCard => "every GPU is unhealthy or cordoned",
            Self::Compute => "insufficient vcuda-core on a single GPU",
            Self::Memory => "insufficient vcuda-memory on a single GPU",
            Self::Split => "free vcuda-core and vcuda-memory are on different GPUs",
            Self::Cards => "insufficient entirely free GPUs",
            Self::NotOffered => "no GPU of the node is offered as shares of this resource",
            Self::TooFewShares => "node has too few GPU shares, or too few where annotation gpu-shares wants them",
            Self::Shares => "insufficient free GPU shares",
            Self::Arrangement => "free GPU shares are not where annotation gpu-shares wants them",
        }
    }

    /// A short stable word for metrics and logs.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownNode => "unknown-node",
            Self::NoCards => "no-gpu",
            Self::UnreadableInventory => "unreadable-inventory",
            Self::LostInventory => "lost-inventory",
            Self::TooManyCards => "too-many-gpus",
            Self::OtherDomain => "other-domain",
            Self::UnreadableRecord => "unreadable-record",
            Self::Isolation => "isolation",
            Self::CardTooSmall => "card-too-small",
            Self::TooFewCards => "too-few-cards",
            Self::NoHealthyCard => "no-healthy-gpu",
            Self::Compute => "core",
            Self::Memory => "memory",
            Self::Split => "split",
            Self::Cards => "whole-cards",
            Self::NotOffered => "not-offered",
            Self::TooFewShares => "too-few-shares",
            Self::Shares => "shares",
            Self::Arrangement => "arrangement",
        }
    }

    /// Whether evictions from the node could make room.
    pub fn resolvable(self) -> bool {
        matches!(self, Self::Compute | Self::Memory | Self::Split | Self::Cards | Self::Shares | Self::Arrangement)
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Unfit {}
