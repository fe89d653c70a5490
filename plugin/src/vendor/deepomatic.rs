//! The device plugin contract of Deepomatic: NVIDIA GPUs as shares by count, in both its forms: the fork of Google's
//! plugin and that of NVIDIA's.

use std::path::PathBuf;
use std::time::Duration;

use crate::device::backend::{BackendFactory, Vendor};
use crate::device::ids::{Base, IdStyle};
use crate::offer::contract::{Contract, Filter, Naming};
use crate::offer::hand_over::{Files, HandOver, Item};
use crate::vendor::auto;
use crate::vendor::flags::{Common, FlagError, Flags};
use crate::vendor::nvidia::files::FilesOptions;
use crate::vendor::nvidia::nvml::Nvidia;
use crate::vendor::scanner::Files as _;
use crate::vendor::support::System;

/// Deepomatic's system, for [NVIDIA](crate::vendor::nvidia).
pub const SYSTEM: System = System {
    name: "deepomatic",
    help: "deepomatic.com/shared-gpu",
    resources: &["deepomatic.com/shared-gpu"],
    contract,
};

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

/// Shares of each GPU as `deepomatic.com/shared-gpu`. The fork of Google's plugin needs no NVIDIA library, gives
/// device files and mounts the driver's directory; that of NVIDIA's plugin names the GPUs to NVIDIA's runtime.
///
/// # Errors
/// [`FlagError`].
fn contract(flags: &Flags, common: &Common) -> Result<Contract, FlagError> {
    let args: DeepomaticArgs = flags.read()?;
    let files = FilesOptions {
        roots: common.backend.roots.clone(),
        memory: common.backend.nvidia.memory,
        ..FilesOptions::default()
    };
    let (replicas, backend, ids, hand_over) = match args.containers_per_gpu {
        None => (
            common.shares("gpu-duplication-factor", args.gpu_duplication_factor)?,
            files.backend(),
            IdStyle { base: Base::Name, numbers: Some(("-_-", 1)) },
            HandOver::new([
                Item::Files(Files::Driver, "mrw"),
                Item::Files(Files::Gpus, "mrw"),
                Item::Directory { host: args.host_path.clone(), container: args.container_path.clone() },
            ]),
        ),
        Some(replicas) => (
            common.shares("containers-per-gpu", replicas)?,
            auto::first_of([BackendFactory::new(common.backend.nvidia.clone(), Nvidia::new), files.backend()]),
            IdStyle { base: Base::Id, numbers: Some(("-_-", 0)) },
            HandOver::new([Item::VisibleDevices([Vendor::Nvidia].into())]),
        ),
    };
    Ok(Contract {
        name: "deepomatic",
        backend,
        naming: Naming::Single("deepomatic.com/shared-gpu".to_owned()),
        placed: common.placed,
        ids,
        replicas,
        filter: Filter::default(),
        order: common.policy,
        hand_over,
        one_share: false,
        monitoring: None,
        numa: false,
        period: Duration::from_secs(5),
    })
}
