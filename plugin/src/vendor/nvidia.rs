//! NVIDIA GPUs.

mod card;
pub mod contract;
mod driver;
pub mod errors;
mod events;
pub mod facts;
pub mod files;
pub mod flags;
pub mod health;
pub mod labels;
mod library;
mod memory;
pub mod mig;
mod missing;
pub mod nvml;
mod options;

use clap::Args as _;
use kerf::isolation::Isolation;

use crate::device::backend::BackendFactory;
use crate::vendor::deepomatic;
use crate::vendor::nvidia::files::FilesOptions;
use crate::vendor::nvidia::flags::NvidiaArgs;
use crate::vendor::nvidia::nvml::Nvidia;
use crate::vendor::scanner::Files as _;
use crate::vendor::support::{BackendKind, NodeLabels, Support, System};

pub const SUPPORT: Support = Support {
    backends: &[
        BackendKind {
            name: "nvidia",
            help: "NVIDIA's management library",
            make: |options| Ok(BackendFactory::new(options.nvidia.clone(), Nvidia::new)),
        },
        BackendKind {
            name: "nvidia-files",
            help: "NVIDIA's files in /proc and /dev",
            make: |options| {
                let (roots, memory) = (options.roots.clone(), options.nvidia.memory);
                Ok(FilesOptions { roots, memory, ..FilesOptions::default() }.backend())
            },
        },
    ],
    awaited: missing::awaited,
    systems: &[
        deepomatic::SYSTEM,
        System {
            name: "nvidia",
            help: "nvidia.com/gpu",
            resources: &["nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-*"],
            contract: contract::contract,
        },
    ],
    flags: |command| NvidiaArgs::augment_args(deepomatic::DeepomaticArgs::augment_args(command)),
    labels: Some(NodeLabels {
        labeller: labels::labeller,
        prefixes: &["nvidia.com/gpu.", "nvidia.com/mig", "nvidia.com/cuda."],
        gate: None,
    }),
    enforced_by: &[Isolation::Mig, Isolation::Driver, Isolation::Mps, Isolation::Limiter],
    visible_by_env: true,
};
