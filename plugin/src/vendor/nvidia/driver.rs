//! The driver while the library is loaded.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kerf::device::Health;
use kerf::ids::DeviceId;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as NvmlDevice, Nvml};
use parking_lot::Mutex;

use crate::device::backend::{GpuUsage, HostDevice, ProcessUsage, Usage};
use crate::device::roots::Roots;
use crate::vendor::nvidia::card::{self, Card, Listed};
use crate::vendor::nvidia::events::Events;
use crate::vendor::nvidia::health::HealthTable;

const LIBRARY: &str = "libnvidia-ml.so.1";

/// The library, the GPUs that it listed, and the thread that waits for its events.
pub(super) struct Driver {
    nvml: Arc<Nvml>,
    table: Arc<Mutex<HealthTable>>,
    /// A lost GPU keeps its place.
    cards: Vec<Listed>,
    /// For the ids of MIG instances, where the library tells them.
    more: Option<kerf_nvml::Nvml>,
    /// When processes were last sampled, by GPU, in the driver's microseconds.
    sampled: BTreeMap<DeviceId, u64>,
    /// `None` while another thread is about to be started.
    events: Option<Events>,
}

/// Whether nothing works any more until the library is started again.
pub(super) fn fatal(error: &NvmlError) -> bool {
    use NvmlError::{DriverNotLoaded, LibRmVersionMismatch, LibraryNotFound, Uninitialized};
    matches!(error, Uninitialized | DriverNotLoaded | LibRmVersionMismatch | LibraryNotFound)
}

impl Driver {
    /// With the library at `path`, or as the loader finds it.
    pub(super) fn start(path: Option<&Path>, mig: bool, quiet: Duration) -> Result<Self, NvmlError> {
        let nvml = Nvml::builder().lib_path(path.map_or(OsStr::new(LIBRARY), Path::as_os_str)).init()?;
        let mut driver = Self {
            nvml: Arc::new(nvml),
            table: Arc::new(Mutex::new(HealthTable::new(quiet))),
            cards: Vec::new(),
            more: kerf_nvml::Nvml::load(path).ok(),
            sampled: BTreeMap::new(),
            events: None,
        };
        let version = driver.nvml.sys_driver_version().unwrap_or_default();
        driver.find_cards(mig)?;
        driver.events = Some(Events::of(&driver.nvml, &driver.cards, &driver.table));
        tracing::info!(version, cards = driver.cards.len(), "NVIDIA driver found");
        Ok(driver)
    }

    /// Whether it must be restarted: the thread that waits for events has ended.
    pub(super) fn ended(&self) -> bool {
        self.events.as_ref().is_none_or(Events::ended)
    }

    /// Takes the GPUs that answer now, and with `mig` instances in place of partitioned ones. A known GPU that does
    /// not answer keeps its place.
    fn find_cards(&mut self, mig: bool) -> Result<(), NvmlError> {
        for index in 0..self.nvml.device_count()? {
            let found = self.nvml.device_by_index(index).and_then(|device| card::listed(index, &device, mig));
            match found {
                Ok(found) => {
                    let now = |known: &Listed| found.iter().any(|new| new.id == known.id);
                    let gone = self.cards.iter().filter(|known| known.index == index && !now(known));
                    // instances that were listed before their GPU was partitioned otherwise
                    gone.for_each(|known| self.table.lock().answers(&known.id, false));
                    self.cards.retain(|known| known.index != index && !now(known));
                    for listed in found {
                        self.table.lock().answers(&listed.id, true);
                        self.cards.push(listed);
                    }
                }
                Err(error) if fatal(&error) => return Err(error),
                Err(error) => tracing::debug!(index, %error, "GPU does not answer"),
            }
        }
        Ok(())
    }

    fn each(&self) -> impl Iterator<Item = (&DeviceId, Result<NvmlDevice<'_>, NvmlError>)> {
        self.cards.iter().map(|listed| (&listed.id, listed.handle(&self.nvml)))
    }

    pub(super) fn discover(&mut self, mig: bool, roots: &Roots) -> Result<Vec<HostDevice>, NvmlError> {
        let before: Vec<DeviceId> = self.cards.iter().map(|listed| listed.id.clone()).collect();
        self.find_cards(mig)?;
        if self.cards.iter().any(|listed| !before.contains(&listed.id)) {
            // the events' thread must know the new GPU, too
            self.events = None;
            self.events = Some(Events::of(&self.nvml, &self.cards, &self.table));
        }
        let health = self.table.lock().health(Instant::now());
        let mut found = Vec::new();
        for listed in &self.cards {
            let id = &listed.id;
            let card = self.nvml.device_by_index(listed.index);
            match card.and_then(|card| Card::of(&self.nvml, self.more.as_ref(), listed, card, roots)) {
                Ok(mut card) => {
                    card.host.device.health = health.get(id).copied().unwrap_or(Health::Unhealthy);
                    found.push(card);
                }
                Err(error) if fatal(&error) => return Err(error),
                Err(error) => {
                    self.table.lock().answers(id, false);
                    tracing::debug!(gpu = %id, %error, "properties of a GPU cannot be read");
                }
            }
        }
        Ok(card::linked(&found))
    }

    pub(super) fn health(&self) -> Result<BTreeMap<DeviceId, Health>, NvmlError> {
        for (id, device) in self.each() {
            // the handle may be of another GPU now; memory is asked because a lost GPU cannot tell it
            let answers = device.and_then(|device| {
                device.memory_info()?;
                Ok(device.uuid()? == id.as_str())
            });
            match answers {
                Err(error) if fatal(&error) => return Err(error),
                answers => self.table.lock().answers(id, answers.unwrap_or(false)),
            }
        }
        Ok(self.table.lock().health(Instant::now()))
    }

    pub(super) fn usage(&mut self) -> Result<Usage, NvmlError> {
        let mut usage = Usage::default();
        let mut sampled = std::mem::take(&mut self.sampled);
        for (id, device) in self.each() {
            let Ok(device) = device else { continue };
            let memory = device.memory_info().ok();
            let gpu = GpuUsage {
                utilization: device.utilization_rates().ok().map(|rates| rates.gpu),
                memory_used: memory.as_ref().map(|memory| memory.used),
                memory_total: memory.as_ref().map(|memory| memory.total),
                temperature: device.temperature(TemperatureSensor::Gpu).ok(),
                power: device.power_usage().ok(),
            };
            usage.gpus.insert(id.clone(), gpu);
            let since = sampled.get(id).copied();
            let samples = device.process_utilization_stats(since).unwrap_or_default();
            if let Some(latest) = samples.iter().map(|sample| sample.timestamp).max() {
                sampled.insert(id.clone(), latest);
            }
            let samples = samples.iter().map(|s| (s.pid, s.timestamp, s.sm_util)).collect();
            let held = device.running_compute_processes().unwrap_or_default();
            let held = held.into_iter().map(|process| match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => (process.pid, Some(bytes)),
                UsedGpuMemory::Unavailable => (process.pid, None),
            });
            usage.processes.extend(processes(id, held, samples));
        }
        self.sampled = sampled;
        Ok(usage)
    }
}

/// Joins what each process holds with what it does. `samples`: pid, time, percent; of several the latest counts.
fn processes(
    id: &DeviceId,
    held: impl IntoIterator<Item = (u32, Option<u64>)>,
    mut samples: Vec<(u32, u64, u32)>,
) -> impl Iterator<Item = ProcessUsage> {
    let blank = |pid, memory| ProcessUsage { pid, device: id.clone(), memory, utilization: None, owner: None };
    let mut joined: BTreeMap<_, _> = held.into_iter().map(|(pid, memory)| (pid, blank(pid, memory))).collect();
    samples.sort_by_key(|(_, time, _)| *time);
    for (pid, _, percent) in samples {
        // the driver fills unused places of its table with zeros, and some versions give more than 100
        if pid != 0 {
            joined.entry(pid).or_insert_with(|| blank(pid, None)).utilization = Some(percent.min(100));
        }
    }
    joined.into_values()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_its_memory_and_its_latest_sample() {
        let id = DeviceId::from("a");
        let samples = vec![(1, 5, 30), (1, 3, 90), (3, 1, 255), (0, 9, 7)];
        let joined = processes(&id, [(1, Some(10)), (2, None)], samples);
        let shown: Vec<_> = joined.map(|p| (p.pid, p.memory, p.utilization)).collect();
        assert_eq!(shown, [(1, Some(10), Some(30)), (2, None, None), (3, None, Some(100))]);
    }
}
