//! What a vendor's driver can tell. This trait separates vendors from all other code, which is the same for all of
//! them.
//!
//! The calls are synchronous, since drivers are, and may be slow: [`crate::follow::devices`] makes them from a
//! blocking thread, with a deadline, one at a time. A missing driver is [`BackendError::Unavailable`]: a state to
//! report and try again, never a reason to end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kerf::device::Health;
use kerf::ids::DeviceId;

pub use crate::device::host::{GpuUsage, HostDevice, Origin, Part, ProcessUsage, Usage, Vendor};
use crate::device::scan::Remark;

/// Why a driver does not answer.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// What the driver would be asked by is not here, such as its library.
    #[error("{backend} is not available: {reason}")]
    Missing {
        backend: &'static str,
        /// In the system's words.
        reason: String,
    },
    /// There is no driver (yet), or no file.
    #[error("{backend} is not available: {reason}")]
    Unavailable {
        backend: &'static str,
        /// In the driver's or the system's words.
        reason: String,
    },
    /// The driver exists but refused a question.
    #[error("{backend} failed at {question}: {reason}")]
    Failed {
        backend: &'static str,
        question: &'static str,
        /// In the driver's words.
        reason: String,
    },
}

impl BackendError {
    /// The label value in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Unavailable { .. } => "unavailable",
            Self::Failed { .. } => "failed",
        }
    }
}

pub trait Backend: Send + Sync + 'static {
    /// The name in flags, metrics and logs.
    fn name(&self) -> &'static str;

    /// The GPUs that are present now, with their health.
    ///
    /// # Errors
    /// [`BackendError`]; the caller then keeps the GPUs that it knows, as unhealthy.
    fn discover(&self) -> Result<Vec<HostDevice>, BackendError>;

    /// The health of each GPU that is present now; cheap enough to ask every second. By default the health that a
    /// discovery finds, for drivers whose files tell everything.
    ///
    /// # Errors
    /// [`BackendError`]; the caller then takes every GPU as unhealthy.
    fn health(&self) -> Result<BTreeMap<DeviceId, Health>, BackendError> {
        Ok(self.discover()?.into_iter().map(|host| (host.device.id, host.device.health)).collect())
    }

    /// What the GPUs and processes use now. By default no more than the sizes of the GPUs' memory.
    ///
    /// # Errors
    /// [`BackendError`]; the caller then reports no usage.
    fn usage(&self) -> Result<Usage, BackendError> {
        Ok(Usage::sizes(&self.discover()?))
    }

    /// Oddities of the last scan, and which GPUs were left out and why.
    fn remarks(&self) -> Vec<Remark> {
        Vec::new()
    }
}

/// Makes a new backend on each call: this is how flags and contracts carry their vendor's driver.
#[derive(Clone)]
pub struct BackendFactory {
    options: Arc<dyn fmt::Debug + Send + Sync>,
    make: Arc<dyn Fn() -> Arc<dyn Backend> + Send + Sync>,
}

impl BackendFactory {
    /// `make` builds the backend from its options.
    pub fn new<O, B>(options: O, make: fn(O) -> B) -> Self
    where
        O: Clone + fmt::Debug + Send + Sync + 'static,
        B: Backend,
    {
        let given = options.clone();
        Self { options: Arc::new(options), make: Arc::new(move || Arc::new(make(given.clone()))) }
    }

    /// A backend that has not yet called its driver.
    pub fn open(&self) -> Arc<dyn Backend> {
        (self.make)()
    }
}

impl fmt::Debug for BackendFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}

/// For tests: a backend without a GPU.
#[cfg(test)]
pub(crate) fn none() -> BackendFactory {
    struct None;
    impl Backend for None {
        fn name(&self) -> &'static str {
            "none"
        }

        fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
            Ok(Vec::new())
        }
    }
    BackendFactory::new((), |()| None)
}
