//! Flags of NVIDIA's device plugin.

use clap::ValueEnum;
use kerf::units::Mib;

use crate::vendor::nvidia::errors::{ErrorPolicy, Xids};

/// What the profile `nvidia` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Profile nvidia")]
pub struct NvidiaArgs {
    /// Containers that may use one GPU in turn (time-slicing)
    #[arg(long, env = "KERF_NVIDIA_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub nvidia_replicas: u32,
    /// Offer shared GPUs as nvidia.com/gpu.shared
    #[arg(long, env = "KERF_RENAME_BY_DEFAULT", value_parser = clap::builder::BoolishValueParser::new())]
    pub rename_by_default: bool,
    /// Refuse a container that asks for more than one share
    #[arg(long, env = "KERF_FAIL_REQUESTS_GREATER_THAN_ONE", value_parser = clap::builder::BoolishValueParser::new())]
    pub fail_requests_greater_than_one: bool,
    /// How MIG instances are offered
    #[arg(long, env = "MIG_STRATEGY", value_enum, default_value_t = MigStrategy::None)]
    pub mig_strategy: MigStrategy,
    /// Profile of this node's MIG instances where NVIDIA's library does not report it, such as 3g.20gb
    #[arg(long, env = "KERF_MIG_PROFILE", default_value = "", hide_default_value = true, value_name = "PROFILE")]
    pub mig_profile: String,
    /// Give device files, too
    #[arg(long, env = "PASS_DEVICE_SPECS", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub pass_device_specs: bool,
    /// How GPUs are passed to the container runtime; several joined by commas
    #[arg(long, env = "DEVICE_LIST_STRATEGY", value_enum, value_delimiter = ',', default_value = "envvar")]
    pub device_list_strategy: Vec<ListStrategy>,
    /// How GPUs are identified to the container runtime
    #[arg(long, env = "DEVICE_ID_STRATEGY", value_enum, default_value_t = IdStrategy::Uuid)]
    pub device_id_strategy: IdStrategy,
    /// Prefix of annotations with CDI names
    #[arg(long, env = "CDI_ANNOTATION_PREFIX", default_value = "cdi.k8s.io/", value_name = "PREFIX")]
    pub cdi_annotation_prefix: String,
}

/// What every profile for NVIDIA's GPUs is told.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "NVIDIA GPUs")]
pub struct DriverArgs {
    /// Errors (Xid) that do not make a GPU unhealthy, beside 13, 31, 43, 45, 68 and 109, which programs cause: numbers joined
    /// by commas, or all
    #[arg(
        long,
        env = "DP_DISABLE_HEALTHCHECKS",
        default_value = "",
        hide_default_value = true,
        value_name = "XIDS"
    )]
    pub ignore_xids: Xids,
    /// Errors (Xid) that make a GPU unhealthy, whatever is ignored: numbers joined by commas, or all
    #[arg(
        long,
        env = "DP_ENABLE_HEALTHCHECKS",
        default_value = "",
        hide_default_value = true,
        value_name = "XIDS"
    )]
    pub count_xids: Xids,
    /// Errors (Xid) after which a GPU stays unhealthy until the plugin is restarted, also when it was reset, instead of for
    /// --quiet-period: numbers joined by commas, or all
    #[arg(long, env = "KERF_LASTING_XIDS", default_value = "", hide_default_value = true, value_name = "XIDS")]
    pub lasting_xids: Xids,
    /// MiB of memory of each GPU whose driver does not report it, such as those that use the machine's memory (GB10)
    #[arg(long, env = "KERF_NVIDIA_MEMORY_MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 24), value_name = "MIB")]
    pub nvidia_memory_mib: Option<u64>,
}

impl DriverArgs {
    pub fn errors(&self) -> ErrorPolicy {
        ErrorPolicy {
            ignored: self.ignore_xids.clone(),
            counted: self.count_xids.clone(),
            lasting: self.lasting_xids.clone(),
        }
    }

    pub fn memory(&self) -> Option<Mib> {
        self.nvidia_memory_mib.map(Mib)
    }
}

/// How MIG instances are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MigStrategy {
    /// Not at all: GPUs with instances are left alone.
    None,
    /// As nvidia.com/gpu.
    Single,
    /// As `nvidia.com/mig-<profile>`.
    Mixed,
}

/// How GPUs are passed to NVIDIA's container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListStrategy {
    /// NVIDIA_VISIBLE_DEVICES.
    Envvar,
    /// Mounts below /var/run/nvidia-container-devices.
    VolumeMounts,
    /// Annotations with CDI names.
    CdiAnnotations,
    /// CDI names.
    CdiCri,
}

/// By what GPUs are named for NVIDIA's container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IdStrategy {
    /// By UUID.
    Uuid,
    /// By number.
    Index,
}
