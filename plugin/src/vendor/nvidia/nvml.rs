//! NVIDIA GPUs, through the management library (NVML), which is loaded at run time.
//!
//! Without the library or the driver, or after the driver went away, the answer is [`BackendError::Unavailable`];
//! the next call tries again from the start. One thread waits for the driver's events and writes them into a table;
//! calls only read it. A GPU in MIG mode is listed as its instances ([`crate::vendor::nvidia::mig`]), unless that
//! is switched off: then it is one GPU.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kerf::device::Health;
use kerf::ids::DeviceId;
use nvml_wrapper::error::NvmlError;
use parking_lot::Mutex;

use crate::device::backend::{Backend, BackendError, HostDevice, Usage};
use crate::device::roots::Roots;
use crate::vendor::nvidia::driver::{Driver, fatal};

const NAME: &str = "nvidia";

/// The NVIDIA driver of this host.
pub struct Nvidia {
    options: NvidiaOptions,
    driver: Mutex<Option<Driver>>,
}

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
}

fn unavailable(error: &NvmlError) -> BackendError {
    BackendError::Unavailable { backend: NAME, reason: error.to_string() }
}

impl Nvidia {
    /// With the library and roots of `options`. Asks nothing yet.
    pub fn new(options: NvidiaOptions) -> Self {
        Self { options, driver: Mutex::new(None) }
    }

    /// Asks the driver, starting it where needed. After a fatal error it is restarted.
    fn ask<T>(
        &self,
        question: &'static str,
        ask: impl FnOnce(&mut Driver, &NvidiaOptions) -> Result<T, NvmlError>,
    ) -> Result<T, BackendError> {
        let mut slot = self.driver.lock();
        if slot.as_ref().is_some_and(Driver::ended) {
            tracing::warn!("NVIDIA event stream ended; initializing NVML again");
            *slot = None;
        }
        let NvidiaOptions { library, mig, quiet_period, .. } = &self.options;
        let start = || Driver::start(library.as_deref(), *mig, *quiet_period);
        let driver = match &mut *slot {
            Some(driver) => driver,
            empty => empty.insert(start().map_err(|error| unavailable(&error))?),
        };
        match ask(driver, &self.options) {
            Ok(answer) => Ok(answer),
            Err(error) if fatal(&error) => {
                *slot = None;
                Err(unavailable(&error))
            }
            Err(error) => Err(BackendError::Failed { backend: NAME, question, reason: error.to_string() }),
        }
    }
}

impl Backend for Nvidia {
    fn name(&self) -> &'static str {
        NAME
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        self.ask("cards", |driver, options| driver.discover(options.mig, &options.roots))
    }

    fn health(&self) -> Result<BTreeMap<DeviceId, Health>, BackendError> {
        self.ask("health", |driver, _| driver.health())
    }

    fn usage(&self) -> Result<Usage, BackendError> {
        self.ask("usage", |driver, _| driver.usage())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_a_state_and_no_failure() {
        let backend = Nvidia::new(NvidiaOptions {
            library: Some("/nonexistent/libnvidia-ml.so.1".into()),
            roots: Roots::default(),
            mig: true,
            quiet_period: Duration::from_secs(1),
        });
        assert_eq!(backend.discover().unwrap_err().code(), "unavailable");
        assert_eq!(backend.usage().unwrap_err().code(), "unavailable");
    }
}
