//! The device plugin contract of Deepomatic: NVIDIA GPUs as shares by count.

pub mod contract;
pub mod flags;

use crate::vendor::support::System;

/// Deepomatic's system, for [NVIDIA](crate::vendor::nvidia).
pub const SYSTEM: System = System {
    name: "deepomatic",
    help: "deepomatic.com/shared-gpu",
    resources: &["deepomatic.com/shared-gpu"],
    contract: contract::contract,
};
