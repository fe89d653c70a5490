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

impl AmdLabel {
    /// The word used in flags and keys.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Family => "family",
            Self::DriverVersion => "driver-version",
            Self::DriverSrcVersion => "driver-src-version",
            Self::DeviceId => "device-id",
            Self::ProductName => "product-name",
            Self::Vram => "vram",
            Self::SimdCount => "simd-count",
            Self::CuCount => "cu-count",
            Self::ComputeMemoryPartition => "compute-memory-partition",
            Self::ComputePartitioningSupported => "compute-partitioning-supported",
            Self::MemoryPartitioningSupported => "memory-partitioning-supported",
        }
    }
}
