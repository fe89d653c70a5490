//! Why a pod does not fit on a node.

use std::fmt;

crate::words! {
    /// The texts are few and have no amounts: the scheduler counts equal ones in the pod's event.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Unfit {
        /// The extender has never seen this node.
        UnknownNode = "unknown-node",
        NoCards = "no-gpu",
        UnreadableInventory = "unreadable-inventory",
        /// kerf's plugin serves the node, and its inventory is gone.
        LostInventory = "lost-inventory",
        TooManyCards = "too-many-gpus",
        /// Pods on the node hold cards under another resource domain; which cards is not known.
        OtherDomain = "other-domain",
        /// The pod is already on the node, and its record cannot be read.
        UnreadableRecord = "unreadable-record",
        /// No card enforces shares as strictly as the pod asks for.
        Isolation = "isolation",
        /// A share needs more memory than any card of the node has.
        CardTooSmall = "card-too-small",
        /// The node has fewer cards than one container needs, or less memory on that many.
        TooFewCards = "too-few-cards",
        /// Every card is unhealthy or cordoned.
        NoHealthyCard = "no-healthy-gpu",
        /// No card has enough free compute.
        Compute = "core",
        /// No card has enough free memory.
        Memory = "memory",
        /// One card has enough compute, another has enough memory, none has both.
        Split = "split",
        /// Not enough cards are free as a whole.
        Cards = "whole-cards",
        /// No card of the node is offered as shares of the resource that the pod asks for.
        NotOffered = "not-offered",
        /// Even with all cards free there are too few shares, or too few in the arrangement that the pod asks for.
        TooFewShares = "too-few-shares",
        Shares = "shares",
        /// Enough shares are free, but not in the arrangement that the pod asks for.
        Arrangement = "arrangement",
    }
}

impl Unfit {
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
