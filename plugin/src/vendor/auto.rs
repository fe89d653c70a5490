//! The first driver that has GPUs. All are tried until one has; then it is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use kerf::device::Health;
use kerf::ids::DeviceId;
use parking_lot::Mutex;

use crate::device::backend::{Backend, BackendError, BackendFactory, HostDevice, Usage};
use crate::device::scan::Remark;

/// Tries backends in order until one has GPUs.
struct Auto {
    /// With the last answer of each, so that only changes are logged.
    candidates: Vec<(Arc<dyn Backend>, Mutex<String>)>,
    chosen: OnceLock<Arc<dyn Backend>>,
}

/// The first of these, in this order, that has GPUs.
pub fn first_of(candidates: impl IntoIterator<Item = BackendFactory>) -> BackendFactory {
    BackendFactory::new(candidates.into_iter().collect(), |candidates: Vec<BackendFactory>| Auto {
        candidates: candidates.iter().map(|candidate| (candidate.open(), Mutex::default())).collect(),
        chosen: OnceLock::new(),
    })
}

impl Auto {
    fn chosen(&self) -> Result<&dyn Backend, BackendError> {
        if let Some(backend) = self.chosen.get() {
            return Ok(backend.as_ref());
        }
        let mut reasons = Vec::new();
        for (backend, last) in &self.candidates {
            let reason = match backend.discover() {
                Ok(devices) if !devices.is_empty() => {
                    tracing::info!(backend = backend.name(), devices = devices.len(), "backend chosen");
                    return Ok(self.chosen.get_or_init(|| Arc::clone(backend)).as_ref());
                }
                Ok(_) => "no cards".to_owned(),
                Err(error) => error.to_string(),
            };
            let mut last = last.lock();
            if *last != reason {
                tracing::info!(backend = backend.name(), reason, "backend passed over");
                last.clone_from(&reason);
            }
            reasons.push(reason);
        }
        Err(BackendError::Unavailable { backend: "auto", reason: reasons.join("; ") })
    }
}

impl Backend for Auto {
    fn name(&self) -> &'static str {
        self.chosen.get().map_or("auto", |backend| backend.name())
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        self.chosen()?.discover()
    }

    fn health(&self) -> Result<BTreeMap<DeviceId, Health>, BackendError> {
        self.chosen()?.health()
    }

    fn usage(&self) -> Result<Usage, BackendError> {
        self.chosen()?.usage()
    }

    fn remarks(&self) -> Vec<Remark> {
        match self.chosen.get() {
            Some(backend) => backend.remarks(),
            None => self.candidates.iter().flat_map(|(backend, _)| backend.remarks()).collect(),
        }
    }
}
