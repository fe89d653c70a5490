//! What the driver's backend needs to know.

use std::path::PathBuf;
use std::time::Duration;

use kerf::units::Mib;

use crate::device::roots::Roots;
use crate::vendor::nvidia::errors::ErrorPolicy;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvidiaOptions {
    /// The management library; `None`: as the loader finds it.
    pub library: Option<PathBuf>,
    /// Where the host's files are mounted. Missing device files are not handed out.
    pub roots: Roots,
    /// Whether GPUs in MIG mode are listed as their instances.
    pub mig: bool,
    /// A GPU is healthy again after this time without critical errors.
    pub quiet_period: Duration,
    /// Which errors are critical.
    pub errors: ErrorPolicy,
    /// The memory of a GPU whose driver does not tell it, where a person has said it.
    pub memory: Option<Mib>,
}

impl Default for NvidiaOptions {
    fn default() -> Self {
        Self {
            library: None,
            roots: Roots::default(),
            mig: true,
            quiet_period: Duration::from_secs(300),
            errors: ErrorPolicy::default(),
            memory: None,
        }
    }
}
