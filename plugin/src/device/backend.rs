//! What a vendor's driver can tell. The only trait of the system: everything above it is the same for all.
//!
//! The calls are synchronous, since drivers are, and may be slow: [`crate::follow::devices`] makes them from a blocking
//! thread, with a deadline, one at a time. A driver that is not there is [`BackendError::Unavailable`]: a state
//! to report and try again, never a reason to end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kerf::device::Health;
use kerf::ids::DeviceId;

pub use crate::device::host::{GpuUsage, HostDevice, ProcessUsage, Usage};
pub use crate::device::origin::{Origin, Part, Vendor};
use crate::device::scan::Remark;

/// Why a driver does not answer.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// There is no driver (yet), or no file.
    #[error("{backend} is not available: {reason}")]
    Unavailable {
        /// Which backend.
        backend: &'static str,
        /// What it said.
        reason: String,
    },
    /// The driver is there but refused a question.
    #[error("{backend} failed at {question}: {reason}")]
    Failed {
        /// Which backend.
        backend: &'static str,
        /// What was asked.
        question: &'static str,
        /// What it said.
        reason: String,
    },
}

impl BackendError {
    /// The word used in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A vendor's driver.
pub trait Backend: Send + Sync + 'static {
    /// The word used in flags, metrics and logs.
    fn name(&self) -> &'static str;

    /// The cards that are here now, with their health.
    ///
    /// # Errors
    /// [`BackendError`]; the caller keeps what it knew, as unhealthy.
    fn discover(&self) -> Result<Vec<HostDevice>, BackendError>;

    /// The health of each card that is here now; cheap enough for every second. Where reading files tells everything, the
    /// cards themselves tell it.
    ///
    /// # Errors
    /// [`BackendError`]; the caller takes every card as unhealthy.
    fn health(&self) -> Result<BTreeMap<DeviceId, Health>, BackendError> {
        Ok(self.discover()?.into_iter().map(|host| (host.device.id, host.device.health)).collect())
    }

    /// What the cards do now.
    ///
    /// # Errors
    /// [`BackendError`]; the caller reports no usage.
    fn usage(&self) -> Result<Usage, BackendError>;

    /// What was odd about the cards at the last look, and which were left out and why.
    fn remarks(&self) -> Vec<Remark> {
        Vec::new()
    }
}

/// Makes a backend, each time a new one: what flags and contracts carry of their vendor's driver.
#[derive(Clone)]
pub struct BackendFactory {
    options: Arc<dyn fmt::Debug + Send + Sync>,
    make: Arc<dyn Fn() -> Arc<dyn Backend> + Send + Sync>,
}

impl BackendFactory {
    /// Of a backend and its options.
    pub fn new<O, B>(options: O, make: fn(O) -> B) -> Self
    where
        O: Clone + fmt::Debug + Send + Sync + 'static,
        B: Backend,
    {
        let given = options.clone();
        Self { options: Arc::new(options), make: Arc::new(move || Arc::new(make(given.clone()))) }
    }

    /// A backend that has asked nothing yet.
    pub fn open(&self) -> Arc<dyn Backend> {
        (self.make)()
    }
}

impl fmt::Debug for BackendFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}

/// For tests: a backend that has no card.
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

        fn usage(&self) -> Result<Usage, BackendError> {
            Ok(Usage::default())
        }
    }
    BackendFactory::new((), |()| None)
}
