//! Flags about AMD's GPUs: of AMD's device plugin, and of its labeller.

use std::path::PathBuf;

use clap::ValueEnum;

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

impl AmdArgs {
    /// The socket of the program that is asked about health; `None`: none is.
    pub(super) fn exporter(&self) -> Option<PathBuf> {
        (self.pulse > 0).then(|| self.amd_exporter_socket.clone())
    }
}

/// How AMD's resources are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NamingStrategy {
    /// `amd.com/gpu`.
    Single,
    /// `amd.com/cpx_nps4` and the like; `amd.com/gpu` for GPUs that cannot be partitioned.
    Mixed,
}

/// What AMD's labeller is told.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Labels")]
pub struct AmdLabelArgs {
    /// Which of AMD's labels, by the names of its labeller's flags
    #[arg(
        long,
        env = "KERF_AMD_LABELS",
        value_enum,
        value_delimiter = ',',
        default_value = "family,driver-version,driver-src-version,device-id,product-name,vram,simd-count,cu-count,compute-memory-partition,compute-partitioning-supported,memory-partitioning-supported",
        hide_default_value = true,
        value_name = "LABELS"
    )]
    pub amd_labels: Vec<AmdLabel>,
}

/// A label of AMD's labeller, by the name of its flag, which is also the end of the label's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum AmdLabel {
    /// Versions of the firmware, of which there are many; not among the default ones.
    Firmware,
    /// Two letters of the architecture, such as `AI`.
    Family,
    /// Version of the driver.
    DriverVersion,
    /// Checksum of the driver's source.
    DriverSrcVersion,
    /// PCI device id.
    DeviceId,
    /// Product name.
    ProductName,
    /// Memory in GiB.
    Vram,
    /// SIMD units.
    SimdCount,
    /// Compute units.
    CuCount,
    /// How all cards are partitioned.
    ComputeMemoryPartition,
    /// Whether compute can be partitioned.
    ComputePartitioningSupported,
    /// Whether memory can be partitioned.
    MemoryPartitioningSupported,
}
