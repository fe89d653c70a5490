//! Flags of Intel's device plugin.

use std::path::PathBuf;

use clap::ValueEnum;
use kerf_proto::xpumd::SeverityLevel;

use crate::vendor::flags::FlagError;

/// The limit of temperatures unless told otherwise, in degrees Celsius.
pub const TEMPERATURE: u32 = 100;

/// Which links below `/dev/dri/by-path` a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ByPath {
    /// None.
    None,
    /// Those of its GPUs.
    Single,
    /// The directory.
    All,
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
    /// Socket of xpumd, Intel's XPU manager from version 2 on, such as /run/xpumd/intelxpuinfo.sock; asked about health
    /// instead of the Level-Zero sidecar where given
    #[arg(long, env = "KERF_XPUMD_ENDPOINT", value_name = "PATH")]
    pub xpumd_endpoint: Option<PathBuf>,
    /// From which severity of xpumd on a GPU is unhealthy
    #[arg(long, env = "KERF_XPUMD_SEVERITY", value_enum, default_value_t = Severity::Warning)]
    pub xpumd_severity: Severity,
    /// Offer a Windows host's GPUs, as many as the Level-Zero sidecar knows, by /dev/dxg (WSL)
    #[arg(long, env = "KERF_WSL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub wsl: bool,
    /// Degrees Celsius above which a GPU is unhealthy
    #[arg(long, env = "KERF_TEMP_LIMIT", default_value_t = TEMPERATURE, value_name = "CELSIUS")]
    pub temp_limit: u32,
    /// Degrees Celsius of the compute units above which a GPU is unhealthy
    #[arg(long, env = "KERF_GPU_TEMP_LIMIT", default_value_t = TEMPERATURE, value_name = "CELSIUS")]
    pub gpu_temp_limit: u32,
    /// Degrees Celsius of the memory above which a GPU is unhealthy
    #[arg(long, env = "KERF_MEMORY_TEMP_LIMIT", default_value_t = TEMPERATURE, value_name = "CELSIUS")]
    pub memory_temp_limit: u32,
    /// Where CDI files are written
    #[arg(long, env = "KERF_CDI_DIR", default_value = "/var/run/cdi", value_name = "DIR")]
    pub cdi_dir: PathBuf,
}

/// Severities of what xpumd reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Severity {
    /// Minor problems, too, such as memory without error correction.
    Warning,
    /// What may keep a GPU from working.
    Critical,
    /// Parts that have failed.
    Failed,
}

impl From<Severity> for SeverityLevel {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Warning => Self::Warning,
            Severity::Critical => Self::Critical,
            Severity::Failed => Self::Failed,
        }
    }
}

/// The resources that show all GPUs.
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

/// A list of PCI ids; empty text is an empty list.
///
/// # Errors
/// [`FlagError`] names the first invalid one.
pub fn pci_ids(text: &str) -> Result<Vec<String>, FlagError> {
    let read = |id: &str| match id.strip_prefix("0x").map(str::as_bytes) {
        Some(digits)
            if digits.len() == 4 && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) =>
        {
            Ok(id.to_owned())
        }
        _ => Err(FlagError(format!(
            "--allow-ids or --deny-ids: {id:?} is not a PCI device id: expected 0x and four lowercase hexadecimal \
             digits, separated by commas"
        ))),
    };
    let ids = text.split(',').filter(|_| !text.is_empty());
    ids.map(|id| read(id.trim())).collect()
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
}
