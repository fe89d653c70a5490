//! What a vendor's driver can tell. The only trait of the system: everything above it is the same for all.
//!
//! The calls are synchronous, since drivers are, and may be slow: [`crate::follow::devices`] makes them from a blocking
//! thread, with a deadline, one at a time. A driver that is not there is [`BackendError::Unavailable`]: a state
//! to report and try again, never a reason to end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use kerf::device::{Device, Health};
use kerf::ids::{ContainerName, DeviceId, PodRef};

use crate::config::BackendChoice;
use crate::device::facts::Facts;
pub use crate::device::origin::{Origin, Part, Vendor};
use crate::device::scan::Remark;
use crate::vendor::amd::scan::{Amd, AmdOptions};
use crate::vendor::auto::Auto;
use crate::vendor::intel::scan::Intel;
use crate::vendor::intel::wsl::Wsl;
use crate::vendor::nvidia::files::NvidiaFiles;
use crate::vendor::nvidia::nvml::Nvidia;
use crate::vendor::simulated::Simulated;

/// A card and how it is reached on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// The card.
    pub device: Device,
    /// PCI address as sysfs spells it (`0000:3b:00.0`); empty where there is none.
    pub pci: String,
    /// Device files that a container needs for this card, as paths on the host.
    pub nodes: Vec<PathBuf>,
    /// Device files that a container needs for any card of this vendor.
    pub control_nodes: Vec<PathBuf>,
    /// What it is among the cards of its host.
    pub origin: Origin,
    /// What its driver tells beyond that.
    pub facts: Facts,
}

impl HostDevice {
    /// Whether it is a hardware partition of a card (MIG): whoever has it whole shares nothing with its neighbours.
    pub fn partition(&self) -> bool {
        matches!(self.origin.part, Part::Instance { .. })
    }

    /// What reports call it: its PCI address, as people look for it, or the kernel's name of a part or an Intel card.
    pub fn subject(&self) -> &str {
        let by_name = self.pci.is_empty() || self.origin.part != Part::Whole || self.origin.vendor == Vendor::Intel;
        if by_name { &self.origin.name } else { &self.pci }
    }
}

/// What the cards do at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// By card.
    pub gpus: BTreeMap<DeviceId, GpuUsage>,
    /// Processes that use a card; one entry for each card that a process uses.
    pub processes: Vec<ProcessUsage>,
}

/// What one card does. `None`: this card does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuUsage {
    /// Time in which it was busy, in percent.
    pub utilization: Option<u32>,
    /// Memory in use, in bytes.
    pub memory_used: Option<u64>,
    /// All memory, in bytes.
    pub memory_total: Option<u64>,
    /// In degrees Celsius.
    pub temperature: Option<u32>,
    /// In milliwatts.
    pub power: Option<u32>,
}

/// What one process does on one card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessUsage {
    /// In the host's PID namespace.
    pub pid: u32,
    /// The card.
    pub device: DeviceId,
    /// Card memory in use, in bytes, where the driver tells.
    pub memory: Option<u64>,
    /// Time in which it used the card's multiprocessors, in percent, where the driver tells.
    pub utilization: Option<u32>,
    /// The container it runs in, where the backend itself says so; otherwise the process's control group does.
    pub owner: Option<(PodRef, ContainerName)>,
}

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

    /// How often what this backend reads was found unusable, since the start.
    fn complaints(&self) -> u64 {
        0
    }

    /// What was odd about the cards at the last look, and which were left out and why.
    fn remarks(&self) -> Vec<Remark> {
        Vec::new()
    }
}

impl<T: Backend + ?Sized> Backend for Arc<T> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        (**self).discover()
    }

    fn health(&self) -> Result<BTreeMap<DeviceId, Health>, BackendError> {
        (**self).health()
    }

    fn usage(&self) -> Result<Usage, BackendError> {
        (**self).usage()
    }

    fn complaints(&self) -> u64 {
        (**self).complaints()
    }

    fn remarks(&self) -> Vec<Remark> {
        (**self).remarks()
    }
}

/// The backend of a choice.
pub fn of(choice: BackendChoice) -> Arc<dyn Backend> {
    match choice {
        BackendChoice::Nvidia(options) => Arc::new(Nvidia::new(options)),
        BackendChoice::NvidiaFiles(options) => Arc::new(NvidiaFiles::new(options)),
        BackendChoice::NvidiaAny(library, files) => {
            Arc::new(Auto::new(vec![Box::new(Nvidia::new(library)), Box::new(NvidiaFiles::new(files))]))
        }
        BackendChoice::Amd(options) => Arc::new(Amd::new(options)),
        BackendChoice::Intel(options) => Arc::new(Intel::new(options)),
        BackendChoice::IntelWsl(options) => Arc::new(Wsl::new(options)),
        BackendChoice::Simulated(path) => Arc::new(Simulated::new(path)),
        BackendChoice::Auto(nvidia, intel, path) => {
            let amd = Amd::new(AmdOptions { roots: intel.roots.clone(), reporter: None });
            let mut candidates: Vec<Box<dyn Backend>> =
                vec![Box::new(Nvidia::new(nvidia)), Box::new(amd), Box::new(Intel::new(intel))];
            candidates.extend(path.map(|path| Box::new(Simulated::new(path)) as Box<dyn Backend>));
            Arc::new(Auto::new(candidates))
        }
    }
}
