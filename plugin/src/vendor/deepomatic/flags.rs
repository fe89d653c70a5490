//! Flags of Deepomatic's two forks.

use std::path::PathBuf;

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
