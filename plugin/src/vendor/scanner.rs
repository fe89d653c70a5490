//! Drivers that are known by the host's files alone: the answer to every question is a new scan of them.

use std::fmt;

use kerf::device::Health;

use crate::device::backend::{Backend, BackendError, BackendFactory, HostDevice, Usage};
use crate::device::scan::{Remark, Scan};
use crate::vendor::remarks::Remarks;

/// Where a driver's files are, and how they are read.
pub trait Files: Clone + fmt::Debug + Send + Sync + 'static {
    /// The backend's name.
    const NAME: &'static str;

    /// # Errors
    /// [`BackendError::Unavailable`] where the driver is missing.
    fn scan(&self) -> Result<Scan, BackendError>;

    /// GPUs that the host shows and this scan does not name, or that it could not look for, with the reason.
    fn missing(&self, _: Result<&Scan, &BackendError>) -> Vec<Remark> {
        Vec::new()
    }

    /// Ids of the GPUs that a program of the vendor reports as unhealthy.
    ///
    /// # Errors
    /// Where that program was named, and does not answer.
    fn unhealthy(&self, _: &[HostDevice]) -> Result<Vec<String>, Remark> {
        Ok(Vec::new())
    }

    /// Makes backends that read these files.
    fn backend(self) -> BackendFactory {
        BackendFactory::new(self, |files| Scanner { files, remarks: Remarks::default() })
    }

    /// By the files alone: programs of the vendor are asked about health, and no more often than that is.
    ///
    /// # Errors
    /// [`BackendError`].
    fn usage(scanner: &Scanner<Self>) -> Result<Usage, BackendError> {
        Ok(Usage::sizes(&scanner.files.scan()?.devices))
    }
}

/// The backend of such a driver.
pub struct Scanner<F> {
    pub(super) files: F,
    remarks: Remarks,
}

impl<F: Files> Backend for Scanner<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        let scanned = self.files.scan();
        let missing = self.files.missing(scanned.as_ref());
        let found = scanned.as_ref().ok().filter(|scan| !scan.devices.is_empty());
        let asked = found.map_or(Ok(Vec::new()), |scan| self.files.unhealthy(&scan.devices));
        let told = scanned.iter().flat_map(|scan| scan.remarks.iter().cloned()).chain(missing);
        self.remarks.take(F::NAME, told.chain(asked.as_ref().err().cloned()).collect());
        let Scan { mut devices, .. } = scanned?;
        let unhealthy = asked.unwrap_or_default();
        for host in devices.iter_mut().filter(|host| unhealthy.iter().any(|id| *id == host.device.id.as_str())) {
            host.device.health = Health::Unhealthy;
        }
        Ok(devices)
    }

    fn usage(&self) -> Result<Usage, BackendError> {
        F::usage(self)
    }

    fn remarks(&self) -> Vec<Remark> {
        self.remarks.all()
    }
}
