//! Flags about labels.

use std::path::PathBuf;

use clap::ValueEnum;

/// Where labels go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LabelMode {
    /// Nowhere; what was written before stays.
    #[default]
    Off,
    /// Into a feature file, which Node Feature Discovery makes labels of.
    Nfd,
    /// Onto the Node itself.
    Node,
    /// Nowhere; what was written before is taken back.
    Clear,
}

/// What is said of labels.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Labels")]
pub struct LabelArgs {
    /// Label the node as the vendors' labellers do: by Node Feature Discovery's file, or the Node itself, which needs
    /// --node-name; `clear` takes back what either wrote
    #[arg(long, env = "KERF_LABELS", value_enum, default_value_t = LabelMode::Off)]
    pub labels: LabelMode,
    /// Where Node Feature Discovery reads feature files, for --labels=nfd
    #[arg(
        long,
        env = "KERF_FEATURES_DIR",
        default_value = "/etc/kubernetes/node-feature-discovery/features.d",
        value_name = "DIR"
    )]
    pub features_dir: PathBuf,
}
