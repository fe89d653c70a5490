//! NVIDIA GPUs, through the management library (NVML), which is loaded at run time.
//!
//! Without the library or the driver, or after the driver went away, the answer is [`BackendError::Unavailable`];
//! the next discovery tries again from the start. One thread waits for the driver's events and writes them into a
//! table, which outlives the library's handles; calls only read it. A GPU in MIG mode is listed as its instances
//! ([`crate::vendor::nvidia::mig`]), unless that is switched off: then it is one GPU.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kerf::device::Health;
use kerf::ids::DeviceId;
use nvml_wrapper::error::NvmlError;
use parking_lot::Mutex;

use crate::device::backend::{Backend, BackendError, HostDevice, Usage};
use crate::device::scan::{Remark, ScanIssue};
use crate::vendor::nvidia::driver::{Driver, fatal};
use crate::vendor::nvidia::health::HealthTable;
use crate::vendor::nvidia::{facts, library, missing};
use crate::vendor::remarks::Remarks;

pub use crate::vendor::nvidia::options::NvidiaOptions;

const NAME: &str = "nvidia";

/// The NVIDIA driver of this host.
pub struct Nvidia {
    options: NvidiaOptions,
    table: Arc<Mutex<HealthTable>>,
    driver: Mutex<Started>,
    remarks: Remarks,
}

/// How far the library was started. Only a discovery starts it again.
enum Started {
    /// It was not asked yet.
    Not,
    /// It could not be started, or has failed since.
    Failed {
        reason: String,
        /// Whether there is none.
        missing: bool,
    },
    Yes(Box<Driver>),
}

impl Nvidia {
    /// With the library and roots of `options`. Asks nothing yet.
    pub fn new(options: NvidiaOptions) -> Self {
        let table = HealthTable::new(options.quiet_period, options.errors.clone());
        Self {
            options,
            table: Arc::new(Mutex::new(table)),
            driver: Mutex::new(Started::Not),
            remarks: Remarks::default(),
        }
    }

    /// Starts the library where it does not run, and where the kernel's module was replaced.
    fn start(&self, slot: &mut Started) {
        let NvidiaOptions { library, roots, .. } = &self.options;
        if let Started::Yes(driver) = slot {
            let Some((before, now)) = driver.replaced(roots) else { return };
            tracing::warn!(before, now, "the kernel's NVIDIA module was replaced; starting the library again");
            // before the next is loaded: the loader gives a library that is in use again, not what replaced it
            *slot = Started::Not;
        }
        *slot = match Driver::start(library.as_deref(), roots, &self.table) {
            Ok(driver) => Started::Yes(Box::new(driver)),
            Err(error) => Started::Failed { reason: self.told(&error), missing: library::is_missing(&error) },
        };
    }

    /// An error, with what to do about it where that is known.
    fn told(&self, error: &NvmlError) -> String {
        if !matches!(error, NvmlError::LibRmVersionMismatch) {
            return library::explained(error, &self.options.roots);
        }
        let module = facts::driver_version(&self.options.roots.proc);
        let module = if module.is_empty() { String::new() } else { format!(" {module}") };
        format!(
            "{error}: the kernel has NVIDIA's module{module}, this process the library of another version. If the driver was \
             upgraded, load its module (or restart the machine), then delete this pod, so that it gets the driver's library"
        )
    }

    /// Asks the driver.
    fn ask<T>(
        &self,
        slot: &mut Started,
        question: &'static str,
        ask: impl FnOnce(&mut Driver, &NvidiaOptions) -> Result<T, NvmlError>,
    ) -> Result<T, BackendError> {
        let unavailable = |reason: String| BackendError::Unavailable { backend: NAME, reason };
        let asked = match slot {
            Started::Yes(driver) => ask(driver, &self.options),
            Started::Failed { reason, missing: true } => {
                return Err(BackendError::Missing { backend: NAME, reason: reason.clone() });
            }
            Started::Failed { reason, missing: false } => return Err(unavailable(reason.clone())),
            Started::Not => return Err(unavailable("the driver was not asked for its GPUs yet".to_owned())),
        };
        asked.map_err(|error| {
            let reason = self.told(&error);
            if fatal(&error) {
                *slot = Started::Failed { reason: reason.clone(), missing: false };
                return unavailable(reason);
            }
            BackendError::Failed { backend: NAME, question, reason }
        })
    }

    fn find(&self, slot: &mut Started) -> Result<Vec<HostDevice>, BackendError> {
        self.start(slot);
        let found = self.ask(slot, "cards", Driver::discover);
        let unavailable = |error: &BackendError| {
            missing::missing(&self.options.roots, &[], BTreeSet::new(), |_| {
                ScanIssue::Unavailable(error.to_string())
            })
        };
        let (hosts, remarks) = match found {
            Ok((hosts, remarks)) => (Ok(hosts), remarks),
            Err(error) => {
                let remarks = unavailable(&error);
                (Err(error), remarks)
            }
        };
        self.remarks.take(NAME, remarks);
        hosts
    }

    /// The driver, which was asked for its GPUs.
    fn asked<T>(
        &self,
        question: &'static str,
        ask: impl FnOnce(&mut Driver, &NvidiaOptions) -> Result<T, NvmlError>,
    ) -> Result<T, BackendError> {
        let mut slot = self.driver.lock();
        if matches!(*slot, Started::Not) {
            self.find(&mut slot)?;
        }
        self.ask(&mut slot, question, ask)
    }
}

impl Backend for Nvidia {
    fn name(&self) -> &'static str {
        NAME
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        self.find(&mut self.driver.lock())
    }

    fn health(&self) -> Result<BTreeMap<DeviceId, Health>, BackendError> {
        self.asked("health", |driver, _| driver.health())
    }

    fn usage(&self) -> Result<Usage, BackendError> {
        self.asked("usage", |driver, _| driver.usage())
    }

    fn remarks(&self) -> Vec<Remark> {
        self.remarks.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_a_state_and_no_failure() {
        let backend = Nvidia::new(NvidiaOptions {
            library: Some("/nonexistent/libnvidia-ml.so.1".into()),
            ..NvidiaOptions::default()
        });
        assert_eq!(backend.discover().unwrap_err().code(), "unavailable");
        assert_eq!(backend.usage().unwrap_err().code(), "unavailable");
    }
}
