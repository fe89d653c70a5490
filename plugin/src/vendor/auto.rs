//! The first driver that has GPUs. All are tried until one has; then it is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use kerf::device::Health;
use kerf::ids::DeviceId;
use parking_lot::Mutex;

use crate::device::backend::{Backend, BackendError, BackendFactory, HostDevice, Usage};
use crate::device::scan::Remark;

/// Tries backends in order until one has GPUs.
pub struct Auto {
    candidates: Vec<Arc<dyn Backend>>,
    chosen: OnceLock<usize>,
    /// The last answer of each, so that only changes are logged.
    verdicts: Mutex<Vec<String>>,
}

/// The first of these that has GPUs.
pub fn first_of(candidates: impl IntoIterator<Item = BackendFactory>) -> BackendFactory {
    BackendFactory::new(candidates.into_iter().collect(), Auto::new)
}

impl Auto {
    /// Tries them in this order.
    pub fn new(candidates: Vec<BackendFactory>) -> Self {
        let candidates: Vec<_> = candidates.iter().map(BackendFactory::open).collect();
        let verdicts = Mutex::new(vec![String::new(); candidates.len()]);
        Self { candidates, chosen: OnceLock::new(), verdicts }
    }

    fn chosen(&self) -> Result<&dyn Backend, BackendError> {
        if let Some(backend) = self.chosen.get().and_then(|at| self.candidates.get(*at)) {
            return Ok(backend.as_ref());
        }
        let mut reasons = Vec::new();
        for (at, backend) in self.candidates.iter().enumerate() {
            match backend.discover() {
                Ok(devices) if !devices.is_empty() => {
                    tracing::info!(backend = backend.name(), devices = devices.len(), "backend chosen");
                    let _ = self.chosen.set(at);
                    return Ok(backend.as_ref());
                }
                Ok(_) => reasons.push(self.verdict(at, backend.as_ref(), "no cards".to_owned())),
                Err(error) => reasons.push(self.verdict(at, backend.as_ref(), error.to_string())),
            }
        }
        Err(BackendError::Unavailable { backend: "auto", reason: reasons.join("; ") })
    }

    fn verdict(&self, at: usize, backend: &dyn Backend, reason: String) -> String {
        let mut verdicts = self.verdicts.lock();
        if let Some(last) = verdicts.get_mut(at).filter(|last| **last != reason) {
            tracing::info!(backend = backend.name(), reason, "backend passed over");
            last.clone_from(&reason);
        }
        reason
    }
}

impl Backend for Auto {
    fn name(&self) -> &'static str {
        self.chosen.get().and_then(|at| self.candidates.get(*at)).map_or("auto", |backend| backend.name())
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
        match self.chosen.get().and_then(|at| self.candidates.get(*at)) {
            Some(backend) => backend.remarks(),
            None => self.candidates.iter().flat_map(|backend| backend.remarks()).collect(),
        }
    }
}
