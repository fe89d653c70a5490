//! NVIDIA cards, through the management library (NVML), which is loaded at run time.
//!
//! No library, no driver or a driver that went away is [`BackendError::Unavailable`]; the next question tries
//! again from the start. One thread waits for the driver's events and writes what it hears into a table; the
//! questions only read it. A card in MIG mode is listed as its instances ([`mig`]), unless that is switched off: then it is one
//! card.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kerf::device::{Device, Health};
use kerf::ids::DeviceId;
use kerf::units::Mib;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as NvmlDevice, Nvml};

use crate::config::NvidiaOptions;
use crate::device::backend::{
    Backend, BackendError, GpuUsage, HostDevice, Origin, Part, ProcessUsage, Usage, Vendor,
};
use crate::device::facts::Facts;
use crate::vendor::nvidia::facts::Lanes;
use crate::vendor::nvidia::health::HealthTable;

const NAME: &str = "nvidia";
const LIBRARY: &str = "libnvidia-ml.so.1";
/// How long the events' thread may take to notice that it is to end.
pub(crate) const EVENT_WAIT_MILLIS: u32 = 500;
/// More lanes than any card has.
const MAX_LANES: u32 = 36;

/// The NVIDIA driver of this host.
pub struct Nvidia {
    options: NvidiaOptions,
    driver: Mutex<Option<Driver>>,
}

struct Driver {
    nvml: Arc<Nvml>,
    table: Arc<Mutex<HealthTable>>,
    /// A lost card keeps its place.
    cards: Vec<Listed>,
    /// For the ids of MIG instances, where the library tells them.
    more: Option<kerf_nvml::Nvml>,
    /// When processes were last sampled, by card, in the driver's microseconds.
    sampled: BTreeMap<DeviceId, u64>,
    events: Events,
}

/// A card, or an instance of one.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// NVML's own index of the card.
    pub(crate) index: u32,
    /// Of its instances the one at this place, where it is one.
    pub(crate) instance: Option<u32>,
    pub(crate) id: DeviceId,
    /// The card that it is, or is of.
    pub(crate) parent: DeviceId,
}

impl Listed {
    fn handle<'a>(&self, nvml: &'a Nvml) -> Result<NvmlDevice<'a>, NvmlError> {
        let card = nvml.device_by_index(self.index)?;
        match self.instance {
            Some(place) => card.mig_device_by_index(place),
            None => Ok(card),
        }
    }
}

/// The thread that waits for events. Ends when dropped.
struct Events {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unavailable(error: &NvmlError) -> BackendError {
    BackendError::Unavailable { backend: NAME, reason: error.to_string() }
}

/// Whether nothing works any more until the library is started again.
fn fatal(error: &NvmlError) -> bool {
    matches!(
        error,
        NvmlError::Uninitialized
            | NvmlError::DriverNotLoaded
            | NvmlError::LibRmVersionMismatch
            | NvmlError::LibraryNotFound
    )
}

impl Nvidia {
    /// With the library and roots of `options`. Asks nothing yet.
    pub fn new(options: NvidiaOptions) -> Self {
        Self { options, driver: Mutex::new(None) }
    }

    fn init(&self) -> Result<Driver, BackendError> {
        let library = self.options.library.as_ref().map_or(OsStr::new(LIBRARY), |path| path.as_os_str());
        let nvml = Nvml::builder().lib_path(library).init().map_err(|error| unavailable(&error))?;
        let nvml = Arc::new(nvml);
        let table = Arc::new(Mutex::new(HealthTable::new(self.options.quiet_period)));
        let mut driver = Driver {
            nvml,
            table,
            cards: Vec::new(),
            more: kerf_nvml::Nvml::load(self.options.library.as_deref()).ok(),
            sampled: BTreeMap::new(),
            events: Events { stop: Arc::default(), thread: None },
        };
        let version = driver.nvml.sys_driver_version().unwrap_or_default();
        driver.find_cards(self.options.mig).map_err(|error| unavailable(&error))?;
        driver.events.thread = driver.listen();
        tracing::info!(version, cards = driver.cards.len(), "NVIDIA driver found");
        Ok(driver)
    }

    /// Asks the driver, starting it where needed. After an error that nothing survives it is started anew.
    fn ask<T>(
        &self,
        question: &'static str,
        ask: impl FnOnce(&mut Driver, &NvidiaOptions) -> Result<T, NvmlError>,
    ) -> Result<T, BackendError> {
        let mut slot = lock(&self.driver);
        if slot.as_ref().is_some_and(|driver| driver.events.thread.as_ref().is_none_or(JoinHandle::is_finished)) {
            tracing::warn!("NVIDIA events ended; starting the library anew");
            *slot = None;
        }
        let driver = match &mut *slot {
            Some(driver) => driver,
            empty => empty.insert(self.init()?),
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

impl Driver {
    /// Takes the cards that answer now, and with `mig` instances in place of those that are cut. One that was here and
    /// is silent keeps its place.
    fn find_cards(&mut self, mig: bool) -> Result<(), NvmlError> {
        for index in 0..self.nvml.device_count()? {
            let found = self.nvml.device_by_index(index).and_then(|device| found(index, &device, mig));
            match found {
                Ok(found) => {
                    let now = |known: &Listed| found.iter().any(|new| new.id == known.id);
                    let gone = self.cards.iter().filter(|known| known.index == index && !now(known));
                    // what was listed of a card that is cut otherwise by now
                    gone.for_each(|known| lock(&self.table).answers(&known.id, false));
                    self.cards.retain(|known| known.index != index && !now(known));
                    for listed in found {
                        lock(&self.table).answers(&listed.id, true);
                        self.cards.push(listed);
                    }
                }
                Err(error) if fatal(&error) => return Err(error),
                Err(error) => tracing::debug!(index, %error, "card does not answer"),
            }
        }
        Ok(())
    }

    /// Starts to wait for events of all cards.
    fn listen(&self) -> Option<JoinHandle<()>> {
        let (nvml, table, stop) = (Arc::clone(&self.nvml), Arc::clone(&self.table), Arc::clone(&self.events.stop));
        let cards = self.cards.clone();
        let run = move || {
            if let Err(error) = crate::vendor::nvidia::events::wait(&nvml, &cards, &table, &stop) {
                tracing::warn!(%error, "NVIDIA events cannot be waited for");
                // where events do not exist, starting anew brings none: only the cards' answers are left
                let never = matches!(
                    error,
                    NvmlError::NotSupported | NvmlError::NoPermission | NvmlError::FailedToLoadSymbol(_)
                );
                while never && !stop.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(EVENT_WAIT_MILLIS.into()));
                }
            }
        };
        std::thread::Builder::new().name("nvidia-events".to_owned()).spawn(run).ok()
    }

    fn each(&self) -> impl Iterator<Item = (&DeviceId, Result<NvmlDevice<'_>, NvmlError>)> {
        self.cards.iter().map(|listed| (&listed.id, listed.handle(&self.nvml)))
    }

    fn discover(&mut self, options: &NvidiaOptions) -> Result<Vec<HostDevice>, NvmlError> {
        let before: Vec<DeviceId> = self.cards.iter().map(|listed| listed.id.clone()).collect();
        self.find_cards(options.mig)?;
        if self.cards.iter().any(|listed| !before.contains(&listed.id)) {
            // the events' thread must know the new card, too
            self.events = Events { stop: Arc::default(), thread: None };
            self.events.thread = self.listen();
        }
        let health = lock(&self.table).health(Instant::now());
        let mut found = Vec::new();
        for listed in &self.cards {
            let id = &listed.id;
            match self.nvml.device_by_index(listed.index).and_then(|card| self.card(listed, card, options)) {
                Ok(mut card) => {
                    card.host.device.health = health.get(id).copied().unwrap_or(Health::Unhealthy);
                    found.push(card);
                }
                Err(error) if fatal(&error) => return Err(error),
                Err(error) => {
                    lock(&self.table).answers(id, false);
                    tracing::debug!(gpu = %id, %error, "card does not tell its facts");
                }
            }
        }
        Ok(linked(found))
    }

    fn health(&self) -> Result<BTreeMap<DeviceId, Health>, NvmlError> {
        for (id, device) in self.each() {
            // the handle may be of another card now; memory is asked because a lost card cannot tell it
            let answers = device.and_then(|device| {
                device.memory_info()?;
                Ok(device.uuid()? == id.as_str())
            });
            match answers {
                Err(error) if fatal(&error) => return Err(error),
                answers => lock(&self.table).answers(id, answers.unwrap_or(false)),
            }
        }
        Ok(lock(&self.table).health(Instant::now()))
    }

    fn usage(&mut self) -> Result<Usage, NvmlError> {
        let mut usage = Usage::default();
        let mut sampled = std::mem::take(&mut self.sampled);
        for (id, device) in self.each() {
            let Ok(device) = device else { continue };
            let memory = device.memory_info().ok();
            usage.gpus.insert(
                id.clone(),
                GpuUsage {
                    utilization: device.utilization_rates().ok().map(|rates| rates.gpu),
                    memory_used: memory.as_ref().map(|memory| memory.used),
                    memory_total: memory.as_ref().map(|memory| memory.total),
                    temperature: device.temperature(TemperatureSensor::Gpu).ok(),
                    power: device.power_usage().ok(),
                },
            );
            let since = sampled.get(id).copied();
            let samples = device.process_utilization_stats(since).unwrap_or_default();
            if let Some(latest) = samples.iter().map(|sample| sample.timestamp).max() {
                sampled.insert(id.clone(), latest);
            }
            let samples: Vec<_> = samples.iter().map(|s| (s.pid, s.timestamp, s.sm_util)).collect();
            let memory = device.running_compute_processes().unwrap_or_default();
            let memory: Vec<_> = memory
                .iter()
                .map(|process| {
                    let bytes = match process.used_gpu_memory {
                        UsedGpuMemory::Used(bytes) => Some(bytes),
                        UsedGpuMemory::Unavailable => None,
                    };
                    (process.pid, bytes)
                })
                .collect();
            usage.processes.extend(processes(id, &memory, &samples));
        }
        self.sampled = sampled;
        Ok(usage)
    }
}

/// Joins what each process holds with what it does. `samples`: pid, time, percent; of several the latest counts.
fn processes(id: &DeviceId, memory: &[(u32, Option<u64>)], samples: &[(u32, u64, u32)]) -> Vec<ProcessUsage> {
    let mut joined: BTreeMap<u32, ProcessUsage> = BTreeMap::new();
    let blank = |pid| ProcessUsage { pid, device: id.clone(), memory: None, utilization: None, owner: None };
    for (pid, bytes) in memory {
        joined.entry(*pid).or_insert_with(|| blank(*pid)).memory = *bytes;
    }
    let mut samples = samples.to_vec();
    samples.sort_by_key(|(_, time, _)| *time);
    for (pid, _, percent) in samples {
        // the driver fills unused places of its table with zeros, and some versions give more than 100
        if pid != 0 {
            joined.entry(pid).or_insert_with(|| blank(pid)).utilization = Some(percent.min(100));
        }
    }
    joined.into_values().collect()
}

/// A card while its links are being found.
struct Card<'a> {
    host: HostDevice,
    handle: NvmlDevice<'a>,
    lanes: Lanes,
}

impl Driver {
    /// The facts of a card or of one of its instances. `card` is the card's handle.
    fn card<'a>(
        &'a self,
        listed: &Listed,
        card: NvmlDevice<'a>,
        options: &NvidiaOptions,
    ) -> Result<Card<'a>, NvmlError> {
        let minor = card.minor_number()?;
        let pci = crate::vendor::nvidia::facts::sysfs_address(&card.pci_info()?.bus_id);
        let numa = crate::vendor::nvidia::facts::numa(&options.sys_root, &pci);
        let (mut nodes, control_nodes) = crate::vendor::nvidia::facts::nodes(&options.dev_root, minor);
        let mut origin = Origin::whole(Vendor::Nvidia, NAME, &format!("nvidia{minor}"), &pci);
        let mut told = crate::vendor::nvidia::facts::of_card(&self.nvml, &card, &options.sys_root, &pci);
        let (handle, index, lanes) = match listed.instance {
            Some(place) => {
                (card.mig_device_by_index(place)?, crate::vendor::nvidia::mig::index(minor, place), Lanes::new())
            }
            None => {
                let lanes = lanes(&card);
                (card, minor, lanes)
            }
        };
        let model = handle.name().unwrap_or_default();
        if listed.instance.is_some() {
            let ids = self.more.as_ref().map(|more| more.instance(listed.id.as_str()));
            let (gi, ci) = ids
                .transpose()
                .unwrap_or_else(|error| {
                    tracing::debug!(gpu = %listed.id, %error, "instance does not tell its ids");
                    None
                })
                .unwrap_or_default();
            nodes.extend(crate::vendor::nvidia::mig::nodes(options, minor, (gi, ci)));
            let profile = model.rsplit_once("MIG ").map_or("", |(_, profile)| profile);
            origin.part = Part::Instance { gi, ci, profile: profile.into() };
            origin.name = format!("nvidia{minor}/gi{gi}").into();
            told.instance = crate::vendor::nvidia::facts::of_instance(&handle);
        }
        let mut device = Device::new(listed.id.clone(), index, Mib(handle.memory_info()?.total >> 20));
        device.model = model.into();
        device.numa = numa;
        let facts = Facts::Nvidia(Arc::new(told));
        Ok(Card { host: HostDevice { device, pci, nodes, control_nodes, origin, facts }, handle, lanes })
    }
}

/// The card at NVML's `index`, or with `mig` its instances where it is cut.
fn found(index: u32, card: &NvmlDevice<'_>, mig: bool) -> Result<Vec<Listed>, NvmlError> {
    let parent = DeviceId::from(card.uuid()?.as_str());
    // older drivers and cards that cannot be cut know no mode
    let cut = mig && card.mig_mode().is_ok_and(|mode| mode.current == 1);
    if !cut {
        return Ok(vec![Listed { index, instance: None, id: parent.clone(), parent }]);
    }
    let mut instances = Vec::new();
    for place in 0..card.mig_device_count()? {
        // places need not be filled
        let Ok(uuid) = card.mig_device_by_index(place).and_then(|instance| instance.uuid()) else { continue };
        let id = DeviceId::from(uuid.as_str());
        instances.push(Listed { index, instance: Some(place), id, parent: parent.clone() });
    }
    Ok(instances)
}

fn lanes(card: &NvmlDevice<'_>) -> Lanes {
    let mut lanes = Lanes::new();
    for lane in 0..MAX_LANES {
        let link = card.link_wrapper_for(lane);
        if !link.is_active().unwrap_or(false) {
            continue;
        }
        if let Ok(remote) = link.remote_pci_info() {
            let count = lanes.entry(crate::vendor::nvidia::facts::sysfs_address(&remote.bus_id)).or_default();
            *count = count.saturating_add(1);
        }
    }
    lanes
}

fn linked(cards: Vec<Card<'_>>) -> Vec<HostDevice> {
    let addresses: Vec<String> = cards.iter().map(|card| card.host.pci.clone()).collect();
    let mut links: Vec<BTreeMap<u32, _>> = Vec::new();
    for a in &cards {
        let others = cards.iter().filter(|b| b.host.device.id != a.host.device.id);
        links.push(
            others
                .filter_map(|b| {
                    let ends = ((a.host.pci.as_str(), &a.lanes), (b.host.pci.as_str(), &b.lanes));
                    let link = crate::vendor::nvidia::facts::nvlink(ends.0, ends.1, &addresses).or_else(|| {
                        // the wrapper takes the other handle by value
                        let other = b.handle.nvml().device_by_pci_bus_id(b.host.pci.as_str()).ok()?;
                        a.handle
                            .topology_common_ancestor(other)
                            .ok()
                            .map(|level| crate::vendor::nvidia::facts::path(&level))
                    });
                    Some((b.host.device.index, link?))
                })
                .collect(),
        );
    }
    cards
        .into_iter()
        .zip(links)
        .map(|(card, links)| {
            let mut host = card.host;
            host.device.links = links;
            host
        })
        .collect()
}

impl Backend for Nvidia {
    fn name(&self) -> &'static str {
        NAME
    }

    fn discover(&self) -> Result<Vec<HostDevice>, BackendError> {
        self.ask("cards", |driver, options| driver.discover(options))
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
            sys_root: "/sys".into(),
            dev_root: "/dev".into(),
            proc_root: "/proc".into(),
            mig: true,
            quiet_period: Duration::from_secs(1),
        });
        assert_eq!(backend.discover().unwrap_err().code(), "unavailable");
        assert_eq!(backend.usage().unwrap_err().code(), "unavailable");
    }

    #[test]
    fn a_process_has_its_memory_and_its_latest_sample() {
        let id = DeviceId::from("a");
        let joined = processes(&id, &[(1, Some(10)), (2, None)], &[(1, 5, 30), (1, 3, 90), (3, 1, 255), (0, 9, 7)]);
        let shown: Vec<_> = joined.iter().map(|p| (p.pid, p.memory, p.utilization)).collect();
        assert_eq!(shown, [(1, Some(10), Some(30)), (2, None, None), (3, None, Some(100))]);
    }
}
