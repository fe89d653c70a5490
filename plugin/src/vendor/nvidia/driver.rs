//! The driver while the library is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kerf::device::Health;
use kerf::ids::DeviceId;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use parking_lot::Mutex;

use crate::device::backend::{GpuUsage, HostDevice, ProcessUsage, Usage};
use crate::device::roots::Roots;
use crate::device::scan::{MAX_DEVICES, Remark, Scan, ScanIssue};
use crate::vendor::nvidia::card::{self, Asked, Card, Listed, Place, Refused};
use crate::vendor::nvidia::events::{Events, Unreported};
use crate::vendor::nvidia::health::HealthTable;
use crate::vendor::nvidia::missing::{self, DRIVER};
use crate::vendor::nvidia::options::NvidiaOptions;
use crate::vendor::nvidia::{facts, files, memory};

const LIBRARY: &str = "libnvidia-ml.so.1";

/// The library, the GPUs that it listed, and the thread that waits for its events.
pub(super) struct Driver {
    nvml: Arc<Nvml>,
    table: Arc<Mutex<HealthTable>>,
    /// A lost GPU keeps its place.
    cards: Vec<Listed>,
    /// The GPUs that the last discovery returned.
    offered: BTreeSet<DeviceId>,
    /// For the ids of MIG instances, and for functions of older drivers, where the library has them.
    more: Option<kerf_nvml::Nvml>,
    /// The version of the kernel's module when the library was started; empty where it is not shown.
    module: String,
    /// When processes were last sampled, by GPU, in the driver's microseconds.
    sampled: BTreeMap<DeviceId, u64>,
    /// `None` while another thread is about to be started.
    events: Option<Events>,
    /// Whether the log has it.
    announced: bool,
}

/// What of the library's list is not offered.
#[derive(Default)]
struct Unanswered {
    /// GPUs of which nothing but their place is known, in their order.
    unplaced: Vec<(u32, ScanIssue)>,
    /// GPUs by their addresses, and instances.
    remarks: Vec<Remark>,
    /// The addresses of GPUs of which each instance is in `remarks`.
    in_parts: Vec<String>,
}

impl Unanswered {
    fn card(&mut self, index: u32, address: Option<String>, why: ScanIssue) {
        match address {
            Some(subject) => self.remarks.push(Remark { subject, left_out: true, why }),
            None => self.unplaced.push((index, why)),
        }
    }
}

/// Whether nothing works any more until the library is started again.
pub(super) fn fatal(error: &NvmlError) -> bool {
    use NvmlError::{DriverNotLoaded, LibRmVersionMismatch, LibraryNotFound, Uninitialized};
    matches!(error, Uninitialized | DriverNotLoaded | LibRmVersionMismatch | LibraryNotFound)
}

impl Driver {
    /// With the library at `path`, or as the loader finds it.
    pub(super) fn start(
        path: Option<&Path>,
        roots: &Roots,
        table: &Arc<Mutex<HealthTable>>,
    ) -> Result<Self, NvmlError> {
        let nvml = Nvml::builder().lib_path(path.map_or(OsStr::new(LIBRARY), Path::as_os_str)).init()?;
        Ok(Self {
            nvml: Arc::new(nvml),
            table: Arc::clone(table),
            cards: Vec::new(),
            offered: BTreeSet::new(),
            more: kerf_nvml::Nvml::load(path).ok(),
            module: facts::driver_version(&roots.proc),
            sampled: BTreeMap::new(),
            events: None,
            announced: false,
        })
    }

    /// The version of the kernel's module where it is another than that which the library was started with.
    pub(super) fn replaced(&self, roots: &Roots) -> Option<(&str, String)> {
        let now = facts::driver_version(&roots.proc);
        let other = !now.is_empty() && !self.module.is_empty() && now != self.module;
        other.then_some((self.module.as_str(), now))
    }

    /// Takes the GPUs that answer now, and with `mig` instances in place of partitioned ones. A known GPU that does
    /// not answer keeps its place.
    fn find_cards(&mut self, mig: bool) -> Result<Unanswered, NvmlError> {
        let mut unanswered = Unanswered::default();
        let (count, most) = (self.nvml.device_count()?, u32::try_from(MAX_DEVICES).unwrap_or(u32::MAX));
        if count > most {
            let why = ScanIssue::TooMany(MAX_DEVICES);
            unanswered.remarks.push(Remark { subject: format!("GPU {most}"), left_out: true, why });
        }
        let mut owners: BTreeMap<DeviceId, BTreeSet<u32>> = BTreeMap::new();
        for index in 0..count.min(most) {
            let device = self.nvml.device_by_index(index).map_err(Refused::from);
            let found = device.and_then(|device| card::listed(index, &device, mig));
            let address = || card::address(&self.nvml.device_by_index(index).ok()?);
            match found {
                Ok(found) => {
                    if found.listed.is_empty() && found.failed.is_empty() {
                        unanswered.card(index, address(), ScanIssue::NoInstances);
                    } else if found.listed.is_empty() {
                        unanswered.in_parts.extend(address());
                    }
                    for listed in &found.listed {
                        owners.entry(listed.id.clone()).or_default().insert(index);
                    }
                    unanswered.remarks.extend(self.take(index, found));
                }
                Err(Refused::Driver(error)) if fatal(&error) => return Err(error),
                // a GPU that is known is asked again below
                Err(_) if self.cards.iter().any(|known| known.index == index) => {}
                Err(refused) => unanswered.card(index, address(), refused.issue()),
            }
        }
        self.leave_twins(&owners, &mut unanswered);
        Ok(unanswered)
    }

    /// Takes out what goes by one id at several places: containers are given GPUs by their ids.
    fn leave_twins(&mut self, owners: &BTreeMap<DeviceId, BTreeSet<u32>>, unanswered: &mut Unanswered) {
        for (id, places) in owners.iter().filter(|(_, places)| places.len() > 1) {
            self.cards.retain(|known| known.id != *id);
            for index in places {
                let other = places.iter().find(|place| *place != index).copied().unwrap_or_default();
                let why = ScanIssue::Twice { what: format!("id {id}"), other: format!("GPU {other}") };
                let card = self.nvml.device_by_index(*index).ok();
                unanswered.card(*index, card.and_then(|card| card::address(&card)), why);
            }
        }
    }

    /// Takes what is at a place of the library's list now. Returns the instances that never answered.
    fn take(&mut self, index: u32, found: Place) -> Vec<Remark> {
        let mut failed = found.failed;
        // an instance that is known is asked again below
        let silent = |known: &Listed| failed.iter().any(|(at, _)| known.instance == Some(*at));
        let (silent, others): (Vec<Listed>, Vec<Listed>) =
            std::mem::take(&mut self.cards).into_iter().partition(|known| known.index == index && silent(known));
        failed.retain(|(at, _)| !silent.iter().any(|known| known.instance == Some(*at)));
        let now = |known: &Listed| found.listed.iter().any(|new| new.id == known.id);
        for known in others {
            if known.index != index && !now(&known) {
                self.cards.push(known);
            } else if !now(&known) && known.instance.is_some() {
                // it was listed before its GPU was partitioned otherwise
                self.table.lock().forget(&known.id);
            }
        }
        self.cards.extend(silent);
        for listed in found.listed {
            let mut table = self.table.lock();
            table.inherit(&listed.id, &listed.parent);
            table.answers(&listed.id, true);
            drop(table);
            self.cards.push(listed);
        }
        let remark = |(at, why): (u32, ScanIssue)| Remark {
            subject: format!("GPU {index} instance {at}"),
            left_out: true,
            why,
        };
        failed.into_iter().map(remark).collect()
    }

    /// The GPUs that can be offered, and why others cannot.
    pub(super) fn discover(
        &mut self,
        options: &NvidiaOptions,
    ) -> Result<(Vec<HostDevice>, Vec<Remark>), NvmlError> {
        let before: Vec<DeviceId> = self.cards.iter().map(|listed| listed.id.clone()).collect();
        let unanswered = self.find_cards(options.mig)?;
        let silent = self.follow_events(&before);
        let health = self.table.lock().health(Instant::now());
        let Unanswered { unplaced, mut remarks, in_parts } = unanswered;
        let mut told: BTreeSet<String> = remarks.iter().map(|remark| remark.subject.clone()).collect();
        told.extend(in_parts);
        let mut found = Vec::new();
        for listed in &self.cards {
            let id = &listed.id;
            let asked = Asked { nvml: &self.nvml, more: self.more.as_ref(), options };
            let card = self.nvml.device_by_index(listed.index).map_err(Refused::from);
            let why = match card.and_then(|card| Card::of(asked, listed, card)) {
                Ok(mut card) => {
                    card.host.device.health = health.get(id).copied().unwrap_or(Health::Unhealthy);
                    let silent = silent.get(&listed.parent).cloned().map(ScanIssue::NoEvents);
                    let subject = card.host.subject().to_owned();
                    let notes = card.notes.drain(..).chain(silent);
                    remarks.extend(notes.map(|why| Remark { subject: subject.clone(), left_out: false, why }));
                    found.push(card);
                    continue;
                }
                Err(Refused::Driver(error)) if fatal(&error) => return Err(error),
                Err(Refused::Driver(error)) => {
                    self.table.lock().answers(id, false);
                    ScanIssue::NoAnswer(error.to_string())
                }
                Err(Refused::Host(why)) => why,
            };
            let address = self.address(listed, &options.roots);
            let subject = address.clone().filter(|_| listed.instance.is_none());
            told.extend(address);
            remarks.push(Remark { subject: subject.unwrap_or_else(|| id.to_string()), left_out: true, why });
        }
        let settled =
            Scan { devices: found.iter().map(|card| card.host.clone()).collect(), ..Scan::default() }.settle();
        let is_settled = |host: &HostDevice| settled.devices.iter().any(|own| own.device.id == host.device.id);
        let (found, twins): (Vec<_>, Vec<_>) = found.into_iter().partition(|card| is_settled(&card.host));
        told.extend(twins.into_iter().map(|card| card.host.pci));
        remarks.extend(settled.remarks);
        let hosts = card::linked(&found);
        remarks.extend(self.missing(&options.roots, &hosts, told, unplaced));
        self.offered = hosts.iter().map(|host| host.device.id.clone()).collect();
        if !std::mem::replace(&mut self.announced, true) {
            let version = self.nvml.sys_driver_version().unwrap_or_default();
            let left_out = remarks.iter().filter(|remark| remark.left_out).count();
            tracing::info!(version, offered = hosts.len(), left_out, "NVIDIA driver found");
        }
        Ok((hosts, remarks))
    }

    /// The PCI address of a GPU, or of that of an instance, where the library or the driver's files still tell it.
    fn address(&self, listed: &Listed, roots: &Roots) -> Option<String> {
        let told = self.nvml.device_by_index(listed.index).ok().and_then(|card| card::address(&card));
        told.or_else(|| files::place(roots, listed.parent.as_str(), "").map(|(pci, _)| pci))
    }

    /// Has the thread wait for the events of all GPUs, also where it has ended. Returns which GPUs' events do not come.
    fn follow_events(&mut self, before: &[DeviceId]) -> Unreported {
        let ended = self.events.as_ref().and_then(Events::end);
        let anew = self.cards.iter().any(|listed| !before.contains(&listed.id));
        if anew || self.events.as_ref().is_none_or(Events::ended) {
            self.events = None;
            self.events = Some(Events::of(&self.nvml, &self.cards, &self.table));
        }
        let mut unreported = Unreported::new();
        // what ended one thread may end the next
        if let Some(why) = ended {
            unreported.extend(self.cards.iter().map(|card| (card.parent.clone(), why.clone())));
        }
        unreported.extend(self.events.iter().flat_map(|events| events.unreported.clone()));
        unreported
    }

    /// The GPUs that nothing was said of yet. `told`: the addresses of those that are left out.
    fn missing(
        &self,
        roots: &Roots,
        hosts: &[HostDevice],
        told: BTreeSet<String>,
        unplaced: Vec<(u32, ScanIssue)>,
    ) -> Vec<Remark> {
        let mut unplaced = unplaced.into_iter();
        let mut remarks = missing::missing(roots, hosts, told, |place| {
            // in the library's order, which is that of the bus
            let by_index = unplaced.next().map(|(_, why)| why);
            match self.nvml.device_by_pci_bus_id(place) {
                Err(error) if !absent(&error) => ScanIssue::NoAnswer(error.to_string()),
                _ => by_index.unwrap_or_else(|| ScanIssue::NotListed(DRIVER.to_owned())),
            }
        });
        let rest = unplaced.map(|(index, why)| Remark { subject: format!("GPU {index}"), left_out: true, why });
        remarks.extend(rest);
        remarks
    }

    pub(super) fn health(&self) -> Result<BTreeMap<DeviceId, Health>, NvmlError> {
        for listed in self.cards.iter().filter(|listed| self.offered.contains(&listed.id)) {
            let id = &listed.id;
            // the handle may be of another GPU now; memory is asked because a lost GPU cannot tell it
            let answers = listed.handle(&self.nvml).and_then(|device| {
                memory::of(&device, id.as_str(), self.more.as_ref())?;
                Ok(device.uuid()? == id.as_str())
            });
            match answers {
                Err(error) if fatal(&error) => return Err(error),
                answers => self.table.lock().answers(id, answers.unwrap_or(false)),
            }
        }
        let mut health = self.table.lock().health(Instant::now());
        // one that is left out is not looked for until the next discovery
        health.retain(|id, _| self.offered.contains(id));
        Ok(health)
    }

    pub(super) fn usage(&mut self) -> Result<Usage, NvmlError> {
        let mut usage = Usage::default();
        let mut sampled = std::mem::take(&mut self.sampled);
        for listed in self.cards.iter().filter(|listed| self.offered.contains(&listed.id)) {
            let (id, more) = (&listed.id, self.more.as_ref());
            let Ok(device) = listed.handle(&self.nvml) else { continue };
            let memory = memory::of(&device, id.as_str(), more).ok().flatten();
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
            let held = memory::processes(&device, id.as_str(), more);
            usage.processes.extend(processes(id, held, samples));
        }
        self.sampled = sampled;
        Ok(usage)
    }
}

/// Whether an error only says that the library knows no GPU by this place, or cannot be asked by it.
fn absent(error: &NvmlError) -> bool {
    memory::unknown(error) || matches!(error, NvmlError::InvalidArg | NvmlError::NotFound)
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
