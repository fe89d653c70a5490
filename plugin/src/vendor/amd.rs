//! AMD GPUs.

pub mod contract;
pub mod flags;
pub mod labels;
pub mod scan;
mod topology;

use clap::Args as _;

use crate::vendor::amd::flags::{AmdArgs, AmdLabelArgs};
use crate::vendor::amd::scan::AmdOptions;
use crate::vendor::scanner::Files as _;
use crate::vendor::support::{BackendKind, NodeLabels, Support, System};

pub const SUPPORT: Support = Support {
    backends: &[BackendKind {
        name: "amd",
        help: "AMD's driver",
        make: |options| {
            let exporter = options.flags.read::<AmdArgs>()?.exporter();
            Ok(AmdOptions { roots: options.roots.clone(), exporter }.backend())
        },
    }],
    awaited: scan::awaited,
    systems: &[System {
        name: "amd",
        help: "amd.com/gpu",
        resources: &[
            "amd.com/gpu",
            "amd.com/spx_*",
            "amd.com/dpx_*",
            "amd.com/tpx_*",
            "amd.com/qpx_*",
            "amd.com/cpx_*",
        ],
        contract: contract::contract,
    }],
    flags: |command| AmdArgs::augment_args(AmdLabelArgs::augment_args(command)),
    labels: Some(NodeLabels {
        labeller: labels::labeller,
        prefixes: &["amd.com/gpu.", "beta.amd.com/gpu."],
        gate: None,
    }),
    enforced_by: &[],
    visible_by_env: false,
};
