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
        /// With kerf, as its manifests install it.
        Kerf = "kerf",
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
            Self::Sampled => Scheduling::Sampled,
            Self::Kerf | Self::All => Scheduling::Full,
        }
    }

    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::All => &["--candidates=0"],
            Self::None | Self::Kerf | Self::Sampled => &[],
        }
    }
}
