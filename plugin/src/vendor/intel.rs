//! Intel GPUs.

pub mod contract;
pub mod flags;
pub mod health;
pub mod labels;
mod level_zero;
pub mod scan;
pub mod wsl;
mod xpumd;

use clap::Args as _;

use crate::vendor::intel::flags::IntelArgs;
use crate::vendor::intel::health::Reporter;
use crate::vendor::intel::scan::IntelOptions;
use crate::vendor::scanner::Files as _;
use crate::vendor::support::{BackendKind, NodeLabels, Support, System};

pub const SUPPORT: Support = Support {
    backends: &[BackendKind {
        name: "intel",
        help: "Intel's drivers",
        make: |options| {
            let sidecar = Reporter::of(&options.flags.read()?)?;
            Ok(IntelOptions { roots: options.roots.clone(), sidecar }.backend())
        },
    }],
    awaited: scan::awaited,
    systems: &[System {
        name: "intel",
        help: "gpu.intel.com/i915 and gpu.intel.com/xe",
        resources: &["gpu.intel.com/i915", "gpu.intel.com/xe"],
        contract: contract::contract,
    }],
    flags: IntelArgs::augment_args,
    labels: Some(NodeLabels {
        labeller: |_, _| Ok(crate::device::label::Labeller::new(labels::labels)),
        prefixes: &["gpu.intel.com/"],
        // written by NFD's rule for Intel's plugin; `nfd_labeled_nodes` selects nodes by it
        gate: Some(("intel.feature.node.kubernetes.io/gpu", "true")),
    }),
    enforced_by: &[],
    visible_by_env: false,
};
