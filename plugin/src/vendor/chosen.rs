//! The GPUs of a driver that an administrator wants to be offered, whichever the driver is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kerf::device::Health;
use kerf::ids::DeviceId;

use crate::device::backend::{Backend, BackendError, BackendFactory, HostDevice, Usage};
use crate::device::choice::Choice;
use crate::device::scan::Remark;
use crate::vendor::hidden::Hidden;
use crate::vendor::remarks::Remarks;

/// The same GPUs without those that are not to be offered.
pub fn chosen(backend: BackendFactory, choice: &Choice) -> BackendFactory {
    if choice.is_all() {
        return backend;
    }
    BackendFactory::new((backend, choice.clone()), |(backend, choice): (BackendFactory, Choice)| Chosen {
        choice,
        inner: backend.open(),
        begun: AtomicBool::default(),
        hidden: Hidden::default(),
        remarks: Remarks::default(),
    })
}

struct Chosen {
    choice: Choice,
    inner: Arc<dyn Backend>,
    /// Whether the GPUs were found once: until then it is not known which are hidden.
    begun: AtomicBool,
    hidden: Hidden,
    remarks: Remarks,
}

impl Chosen {
    fn begin(&self) -> Result<(), BackendError> {
        if self.begun.load(Ordering::Acquire) { Ok(()) } else { self.discover().map(drop) }
    }
}

impl Backend for Chosen {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        let found = self.inner.discover().inspect_err(|_| self.remarks.take(self.name(), Vec::new()))?;
        let mut remarks = self.choice.without_gpus(&found);
        let (mut offered, hidden): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|host| self.choice.refusal(host).is_none());
        remarks.extend(hidden.iter().filter_map(|host| {
            let why = self.choice.refusal(host)?;
            Some(Remark { subject: host.subject().to_owned(), left_out: true, why })
        }));
        let gone: BTreeSet<u32> = hidden.iter().map(|host| host.device.index).collect();
        for host in &mut offered {
            host.device.links.retain(|peer, _| !gone.contains(peer));
        }
        self.hidden.set(hidden.iter());
        self.remarks.take(self.name(), remarks);
        self.begun.store(true, Ordering::Release);
        Ok(offered)
    }

    fn health(&self) -> Result<BTreeMap<DeviceId, Health>, BackendError> {
        self.begin()?;
        Ok(self.hidden.health(self.inner.health()?))
    }

    fn usage(&self) -> Result<Usage, BackendError> {
        self.begin()?;
        Ok(self.hidden.usage(self.inner.usage()?))
    }

    fn remarks(&self) -> Vec<Remark> {
        self.inner.remarks().into_iter().chain(self.remarks.all()).collect()
    }
}
