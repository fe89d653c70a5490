//! The flags of the systems whose contracts are served, under their own names, so that their manifests run unchanged.
//!
//! Those systems take flags with one dash; [`two_dashes`] makes two of it.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::offer::hand_over::ByPath;

/// A system whose contract is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum ProfileName {
    /// vcuda-core and vcuda-memory, placed by the extender.
    Vcuda,
    /// deepomatic.com/shared-gpu.
    Deepomatic,
    /// amd.com/gpu.
    Amd,
    /// gpu.intel.com/i915 and gpu.intel.com/xe.
    Intel,
    /// nvidia.com/gpu.
    Nvidia,
}

impl ProfileName {
    /// The word used in flags, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vcuda => "vcuda",
            Self::Deepomatic => "deepomatic",
            Self::Amd => "amd",
            Self::Intel => "intel",
            Self::Nvidia => "nvidia",
        }
    }
}

/// What the profiles beside `vcuda` are told.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Profiles")]
pub struct ProfileArgs {
    /// What the node offers; several names joined by commas
    #[arg(long, env = "KERF_PROFILE", value_enum, value_delimiter = ',', default_value = "vcuda")]
    pub profile: Vec<ProfileName>,
    /// Have kerf's extender choose the GPUs of the pods of all profiles: needs --node-name and the API server
    #[arg(long, env = "KERF_PLACED", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub placed: bool,
    /// How shared GPUs are given out by deepomatic, nvidia and amd: spread, or one GPU after the other
    #[arg(long, env = "KERF_SHARE_POLICY", value_enum, default_value_t = SharePolicy::Distributed)]
    pub share_policy: SharePolicy,
    /// What amd.com is told
    #[command(flatten)]
    pub amd: AmdArgs,
    /// What gpu.intel.com is told
    #[command(flatten)]
    pub intel: IntelArgs,
    /// What deepomatic.com is told
    #[command(flatten)]
    pub deepomatic: DeepomaticArgs,
    /// What nvidia.com is told
    #[command(flatten)]
    pub nvidia: NvidiaArgs,
    /// Flags of other systems' logs; --log decides here
    #[command(flatten)]
    pub klog: KlogArgs,
}

impl ProfileArgs {
    /// The flag that says how many shares of each card a profile offers.
    pub fn shares_flag(&self, profile: ProfileName) -> &'static str {
        match profile {
            ProfileName::Vcuda => "profile",
            ProfileName::Amd => "amd-replicas",
            ProfileName::Intel => "shared-dev-num",
            ProfileName::Deepomatic if self.deepomatic.containers_per_gpu.is_some() => "containers-per-gpu",
            ProfileName::Deepomatic => "gpu-duplication-factor",
            ProfileName::Nvidia => "nvidia-replicas",
        }
    }
}

/// How shares of several cards are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SharePolicy {
    /// From the GPU that is used least.
    Distributed,
    /// From the GPU that is used most.
    Packed,
}

/// What the profile `amd` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Profile amd")]
pub struct AmdArgs {
    /// Seconds between health checks of the GPUs; 0: every 5 seconds
    #[arg(long, env = "KERF_PULSE", default_value_t = 0, value_name = "SECONDS")]
    pub pulse: u64,
    /// One resource for all GPUs, or one for each way in which GPUs are partitioned
    #[arg(
        long = "resource_naming_strategy",
        alias = "resource-naming-strategy",
        env = "KERF_RESOURCE_NAMING_STRATEGY",
        value_enum,
        default_value_t = NamingStrategy::Single
    )]
    pub resource_naming_strategy: NamingStrategy,
    /// Socket of AMD's metrics exporter; asked about health where --pulse is above 0
    #[arg(
        long,
        env = "KERF_AMD_EXPORTER_SOCKET",
        default_value = "/var/lib/amd-metrics-exporter/amdgpu_device_metrics_exporter_grpc.socket",
        value_name = "PATH"
    )]
    pub amd_exporter_socket: PathBuf,
    /// Shares of each AMD GPU or partition
    #[arg(long, env = "KERF_AMD_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub amd_replicas: u32,
}

/// How AMD's resources are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NamingStrategy {
    /// `amd.com/gpu`.
    Single,
    /// `amd.com/cpx_nps4` and the like; `amd.com/gpu` for GPUs that cannot be partitioned.
    Mixed,
}

/// What the profile `intel` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Profile intel")]
pub struct IntelArgs {
    /// Directory that holds the host's sys and dev; instead of --sys-root and --dev-root
    #[arg(long, env = "KERF_PREFIX", default_value = "", hide_default_value = true, value_name = "DIR")]
    pub prefix: String,
    /// Offer a resource that shows all GPUs
    #[arg(long, env = "KERF_ENABLE_MONITORING", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub enable_monitoring: bool,
    /// One such resource, or one for each driver
    #[arg(long, env = "KERF_MONITORING_MODE", value_enum, default_value_t = MonitoringMode::Single)]
    pub monitoring_mode: MonitoringMode,
    /// Containers that may use one GPU at a time
    #[arg(long, env = "KERF_SHARED_DEV_NUM", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub shared_dev_num: u32,
    /// Which ids kubelet is advised to take
    #[arg(long, env = "KERF_ALLOCATION_POLICY", value_enum, default_value_t = AllocationPolicy::None)]
    pub allocation_policy: AllocationPolicy,
    /// Which links below /dev/dri/by-path containers get
    #[arg(long, env = "KERF_BYPATH", value_enum, default_value_t = ByPath::Single)]
    pub bypath: ByPath,
    /// Serve only GPUs of these PCI ids, such as 0x56c0,0x56c1
    #[arg(long, env = "KERF_ALLOW_IDS", default_value = "", hide_default_value = true, value_name = "IDS")]
    pub allow_ids: String,
    /// Serve no GPUs of these PCI ids
    #[arg(long, env = "KERF_DENY_IDS", default_value = "", hide_default_value = true, value_name = "IDS")]
    pub deny_ids: String,
    /// Ask the Level-Zero sidecar about health and temperature
    #[arg(long, env = "KERF_HEALTH_MANAGEMENT", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub health_management: bool,
    /// Socket of the Level-Zero sidecar
    #[arg(
        long,
        env = "KERF_LEVELZERO_SOCKET",
        default_value = "/var/lib/levelzero/server.sock",
        value_name = "PATH"
    )]
    pub levelzero_socket: PathBuf,
    /// Offer a Windows host's GPUs, as many as the Level-Zero sidecar knows, by /dev/dxg (WSL)
    #[arg(long, env = "KERF_WSL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub wsl: bool,
    /// Degrees Celsius above which a GPU is unhealthy
    #[arg(long, env = "KERF_TEMP_LIMIT", default_value_t = 100, value_name = "CELSIUS")]
    pub temp_limit: u32,
    /// Degrees Celsius of the compute units above which a GPU is unhealthy
    #[arg(long, env = "KERF_GPU_TEMP_LIMIT", default_value_t = 100, value_name = "CELSIUS")]
    pub gpu_temp_limit: u32,
    /// Degrees Celsius of the memory above which a GPU is unhealthy
    #[arg(long, env = "KERF_MEMORY_TEMP_LIMIT", default_value_t = 100, value_name = "CELSIUS")]
    pub memory_temp_limit: u32,
    /// Where CDI files are written
    #[arg(long, env = "KERF_CDI_DIR", default_value = "/var/run/cdi", value_name = "DIR")]
    pub cdi_dir: PathBuf,
}

/// Resources that show all cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MonitoringMode {
    /// `gpu.intel.com/monitoring`.
    Single,
    /// `gpu.intel.com/i915_monitoring` and `gpu.intel.com/xe_monitoring`.
    Split,
}

/// Intel's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AllocationPolicy {
    /// One share of each GPU in kubelet's order, then the rest.
    None,
    /// The GPU with the most free shares.
    Balanced,
    /// One GPU after the other.
    Packed,
}

/// What the profile `deepomatic` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Profile deepomatic")]
pub struct DeepomaticArgs {
    /// Where the driver's libraries are on the host
    #[arg(long, env = "KERF_HOST_PATH", default_value = "/home/kubernetes/bin/nvidia", value_name = "DIR")]
    pub host_path: PathBuf,
    /// Where they are in containers
    #[arg(long, env = "KERF_CONTAINER_PATH", default_value = "/usr/local/nvidia", value_name = "DIR")]
    pub container_path: PathBuf,
    /// Shares of each GPU
    #[arg(long, env = "KERF_GPU_DUPLICATION_FACTOR", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub gpu_duplication_factor: u32,
    /// Shares of each GPU, as the fork of NVIDIA's plugin has them: ids by UUID, GPUs by NVIDIA_VISIBLE_DEVICES
    #[arg(long, env = "DP_NUMBER_CONTAINERS_PER_GPU", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub containers_per_gpu: Option<u32>,
}

/// What the profile `nvidia` is told.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Profile nvidia")]
pub struct NvidiaArgs {
    /// Containers that may use one GPU in turn (time-slicing)
    #[arg(long, env = "KERF_NVIDIA_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub nvidia_replicas: u32,
    /// Offer shared GPUs as nvidia.com/gpu.shared
    #[arg(long, env = "KERF_RENAME_BY_DEFAULT")]
    pub rename_by_default: bool,
    /// Refuse a container that asks for more than one share
    #[arg(long, env = "KERF_FAIL_REQUESTS_GREATER_THAN_ONE")]
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

/// How NVIDIA's container runtime is told.
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

/// What cards are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IdStrategy {
    /// By UUID.
    Uuid,
    /// By number.
    Index,
}

/// Accepted and without effect.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logs")]
pub struct KlogArgs {
    /// How much is logged
    #[arg(long = "v", hide = true, value_name = "LEVEL")]
    pub verbosity: Option<u8>,
    /// Where logs go
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub logtostderr: Option<bool>,
    /// From which severity on
    #[arg(long, hide = true, value_name = "SEVERITY")]
    pub stderrthreshold: Option<String>,
}

/// A list of PCI ids that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI id: expected 0x and four small hexadecimal digits, several joined by commas")]
pub struct BadPciId(String);

/// A list of PCI ids; empty text is none.
///
/// # Errors
/// [`BadPciId`] names the first that is wrong.
pub fn pci_ids(text: &str) -> Result<Vec<String>, BadPciId> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let legal = |id: &str| {
        let digits = id.strip_prefix("0x").unwrap_or_default();
        digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
    };
    let parsed = text.split(',').map(str::trim).map(|id| match legal(id) {
        true => Ok(id.to_owned()),
        false => Err(BadPciId(id.to_owned())),
    });
    parsed.collect()
}

/// Arguments with `--` where Go programs take one dash: `-pulse=10`. What follows `--` alone is left as it is.
pub fn two_dashes(args: impl IntoIterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let mut plain = false;
    let mut words = args.into_iter();
    let program = words.next();
    let rest = words.map(|word| {
        plain |= word == "--";
        let name = word.to_str().and_then(|text| text.strip_prefix('-')).unwrap_or_default();
        let flag = name.split('=').next().unwrap_or_default();
        let long = flag.len() > 1 || name.starts_with("v=");
        if !plain && long && flag.starts_with(|c: char| c.is_ascii_lowercase()) {
            format!("--{name}").into()
        } else {
            word
        }
    });
    program.into_iter().chain(rest.collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_ids_are_read_as_intels_plugin_reads_them() {
        assert_eq!(pci_ids("0x1234").unwrap(), ["0x1234"]);
        assert_eq!(pci_ids("0x1234,0x5678,0x9abc").unwrap().len(), 3);
        assert_eq!(pci_ids(" 0x1234 , 0x5678 ").unwrap(), ["0x1234", "0x5678"]);
        assert!(pci_ids("").unwrap().is_empty());
        for bad in ["0x1234,abcd", "0x123,0x5678", "0x1234,", "0xAA12,", "0xAA12"] {
            assert!(pci_ids(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_with_one_dash_are_taken() {
        let given =
            ["p", "-pulse=10", "-v=2", "-h", "--log", "debug", "-", "-7", "-enable-monitoring", "--", "-x=1"];
        let made = two_dashes(given.map(Into::into));
        let wanted =
            ["p", "--pulse=10", "--v=2", "-h", "--log", "debug", "-", "-7", "--enable-monitoring", "--", "-x=1"];
        assert_eq!(made, wanted.map(std::ffi::OsString::from));
    }
}
