//! Drivers that are known by the host's files alone: the answer to every question is a new scan of them.

use std::fmt;

use kerf::device::Health;
use parking_lot::Mutex;

use crate::device::backend::{Backend, BackendError, BackendFactory, HostDevice, Usage};
use crate::device::scan::{Remark, Scan};

/// Where a driver's files are, and how they are read.
pub trait Files: Clone + fmt::Debug + Send + Sync + 'static {
    /// The backend's name.
    const NAME: &'static str;

    /// # Errors
    /// [`BackendError::Unavailable`] where the driver is missing.
    fn scan(&self) -> Result<Scan, BackendError>;

    /// Ids of the GPUs that a program of the vendor reports as unhealthy.
    fn unhealthy(&self, _: &[HostDevice]) -> Vec<String> {
        Vec::new()
    }

    /// Makes backends that read these files.
    fn backend(self) -> BackendFactory {
        BackendFactory::new(self, |files| Scanner { files, known: Mutex::default() })
    }

    /// # Errors
    /// [`BackendError`].
    fn usage(scanner: &Scanner<Self>) -> Result<Usage, BackendError> {
        Ok(Usage::sizes(&scanner.discover()?))
    }
}

/// The backend of such a driver.
pub struct Scanner<F> {
    pub(super) files: F,
    /// The remarks of the last scan, so that only new ones are logged.
    known: Mutex<Vec<Remark>>,
}

impl<F: Files> Scanner<F> {
    fn log(&self, remarks: Vec<Remark>) {
        let mut known = self.known.lock();
        for remark in remarks.iter().filter(|remark| !known.contains(remark)) {
            let (backend, gpu, why, code) = (F::NAME, &remark.subject, &remark.why, remark.why.code());
            if remark.left_out {
                tracing::warn!(backend, gpu, code, %why, "GPU left out");
            } else {
                tracing::info!(backend, gpu, code, %why, "card");
            }
        }
        *known = remarks;
    }
}

impl<F: Files> Backend for Scanner<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        let Scan { mut devices, remarks } = self.files.scan()?;
        self.log(remarks);
        let unhealthy = self.files.unhealthy(&devices);
        for host in devices.iter_mut().filter(|host| unhealthy.iter().any(|id| *id == host.device.id.as_str())) {
            host.device.health = Health::Unhealthy;
        }
        Ok(devices)
    }

    fn usage(&self) -> Result<Usage, BackendError> {
        F::usage(self)
    }

    fn remarks(&self) -> Vec<Remark> {
        self.known.lock().clone()
    }
}
