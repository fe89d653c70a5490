//! GPUs that do not exist.

pub mod file;

use kerf::isolation::Isolation;

use crate::device::backend::BackendFactory;
use crate::vendor::flags::FlagError;
use crate::vendor::simulated::file::Simulated;
use crate::vendor::support::{BackendKind, Support};

/// Simulated GPUs count as NVIDIA's.
pub const SUPPORT: Support = Support {
    backends: &[BackendKind {
        name: "simulated",
        help: "A file",
        make: |options| match &options.simulated {
            Some(options) => Ok(BackendFactory::new(options.clone(), Simulated::new)),
            None => Err(FlagError("--backend simulated needs --simulated-file".to_owned())),
        },
    }],
    awaited: |_| None,
    systems: &[],
    flags: |command| command,
    labels: None,
    enforced_by: &[Isolation::Mig, Isolation::Driver, Isolation::Mps, Isolation::Limiter],
    visible_by_env: true,
};
