//! What schedules the pods.

use kerf_cluster::control::Scheduling;

/// Not the word of a setup, or of a workload.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("unknown word")]
pub struct UnknownWord;

kerf::words! {
    /// What schedules the pods.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Setup or UnknownWord {
        /// kube-scheduler alone, which sees the nodes' totals.
        None = "none",
        /// The same, looking at all nodes as kerf's shipped configuration does.
        NoneAll = "none-all",
        /// With the extender beside the cluster's own scheduler.
        Kerf = "kerf",
        /// With a scheduler of kerf's own, beside the cluster's: as `manifests/base` installs it, policies included.
        Bundled = "bundled",
        /// The same without `percentageOfNodesToScore`: of many nodes the scheduler looks at a part.
        Sampled = "sampled",
        /// As `kerf`, with `--candidates=0`: the scheduler goes on with all nodes that fit.
        All = "all",
    }
}

impl Setup {
    pub fn scheduling(self) -> Scheduling {
        match self {
            Self::None => Scheduling::Plain,
            Self::NoneAll => Scheduling::PlainAll,
            Self::Sampled => Scheduling::Sampled,
            Self::Bundled => Scheduling::Own,
            Self::Kerf | Self::All => Scheduling::Full,
        }
    }

    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::All => &["--candidates=0"],
            Self::None | Self::NoneAll | Self::Kerf | Self::Bundled | Self::Sampled => &[],
        }
    }
}
