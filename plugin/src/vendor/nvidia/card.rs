//! GPUs and instances (MIG) that the driver is asked about, what it tells of one, and how they are linked.

use std::collections::BTreeMap;
use std::sync::Arc;

use kerf::device::{Device, Link};
use kerf::ids::DeviceId;
use kerf::units::Mib;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as NvmlDevice, Nvml};

use crate::device::backend::{HostDevice, Origin, Part, Vendor};
use crate::device::facts::Facts;
use crate::device::roots::{self, Roots};
use crate::device::scan::{self, ScanIssue};
use crate::vendor::nvidia::facts::{self, Lanes};
use crate::vendor::nvidia::missing::DRIVER;
use crate::vendor::nvidia::options::NvidiaOptions;
use crate::vendor::nvidia::{files, memory, mig};

/// More lanes than any GPU has.
const MAX_LANES: u32 = 36;
/// More bytes than a UUID has, of a GPU or, in the older spelling, an instance.
const MAX_UUID: usize = 80;

/// A GPU, or an instance of one.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// NVML's own index of the GPU.
    pub(super) index: u32,
    /// The index of the instance on its GPU; `None` for a whole GPU.
    pub(super) instance: Option<u32>,
    pub(super) id: DeviceId,
    /// The GPU itself, or that of the instance.
    pub(super) parent: DeviceId,
}

impl Listed {
    pub(super) fn handle<'a>(&self, nvml: &'a Nvml) -> Result<NvmlDevice<'a>, NvmlError> {
        let card = nvml.device_by_index(self.index)?;
        match self.instance {
            Some(place) => card.mig_device_by_index(place),
            None => Ok(card),
        }
    }
}

/// What is at a place of the library's list.
pub(super) struct Place {
    pub(super) listed: Vec<Listed>,
    /// Places of instances that do not answer, and why.
    pub(super) failed: Vec<(u32, ScanIssue)>,
}

/// The UUID of a GPU or instance, which containers are given it by.
fn uuid(device: &NvmlDevice<'_>) -> Result<DeviceId, Refused> {
    let uuid = device.uuid()?;
    // the slash is in the older spelling of an instance
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '/');
    if uuid.is_empty() || uuid.len() > MAX_UUID || !uuid.chars().all(legal) {
        let shown: String = uuid.chars().take(MAX_UUID).collect();
        return Err(ScanIssue::NoAnswer(format!("it says that its UUID is {shown:?}")).into());
    }
    Ok(DeviceId::from(uuid.as_str()))
}

/// The GPU at NVML's `index`, or with `mig` its instances where it is partitioned.
pub(super) fn listed(index: u32, card: &NvmlDevice<'_>, mig: bool) -> Result<Place, Refused> {
    let parent = uuid(card)?;
    // older drivers and GPUs that cannot be partitioned have no mode
    let cut = mig && card.mig_mode().is_ok_and(|mode| mode.current == 1);
    let mut place = Place { listed: Vec::new(), failed: Vec::new() };
    if !cut {
        place.listed.push(Listed { index, instance: None, id: parent.clone(), parent });
        return Ok(place);
    }
    for at in 0..card.mig_device_count()?.min(mig::MOST) {
        match card.mig_device_by_index(at).map_err(Refused::from).and_then(|instance| uuid(&instance)) {
            Ok(id) => place.listed.push(Listed { index, instance: Some(at), id, parent: parent.clone() }),
            // some places may be empty
            Err(Refused::Driver(NvmlError::NotFound | NvmlError::InvalidArg)) => {}
            Err(refused) => place.failed.push((at, refused.issue())),
        }
    }
    Ok(place)
}

/// Why a GPU is not offered.
pub(super) enum Refused {
    /// The driver's answer to a question without which it cannot be offered.
    Driver(NvmlError),
    Host(ScanIssue),
}

impl Refused {
    pub(super) fn issue(self) -> ScanIssue {
        match self {
            Self::Driver(error) => ScanIssue::NoAnswer(error.to_string()),
            Self::Host(issue) => issue,
        }
    }
}

impl From<NvmlError> for Refused {
    fn from(error: NvmlError) -> Self {
        Self::Driver(error)
    }
}

impl From<ScanIssue> for Refused {
    fn from(issue: ScanIssue) -> Self {
        Self::Host(issue)
    }
}

/// The library, with functions that the wrapper lacks where they could be loaded, and what is to be found with it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) nvml: &'a Nvml,
    pub(super) more: Option<&'a kerf_nvml::Nvml>,
    pub(super) options: &'a NvidiaOptions,
}

/// A GPU while its links are being found.
pub(super) struct Card<'a> {
    pub(super) host: HostDevice,
    /// Oddities with which it is offered all the same.
    pub(super) notes: Vec<ScanIssue>,
    handle: NvmlDevice<'a>,
    lanes: Lanes,
}

impl<'a> Card<'a> {
    /// The facts of a GPU or of one of its instances. `card` is the GPU's handle.
    pub(super) fn of(asked: Asked<'_>, listed: &Listed, card: NvmlDevice<'a>) -> Result<Self, Refused> {
        let Asked { nvml, more, options } = asked;
        let roots = &options.roots;
        let (pci, minor) = place(nvml, roots, listed, &card)?;
        let numa = roots::numa(&facts::pci_device(&roots.sys, &pci)).ok().flatten();
        let name = format!("nvidia{minor}");
        let control_nodes = facts::control_nodes(roots);
        let mut notes = Vec::new();
        let mut nodes = match scan::node(roots, &name) {
            Ok(node) => vec![node],
            // without any file of the driver's, the host's files are not seen here, and others hand them out
            Err(why) if control_nodes.is_empty() => {
                notes.push(why);
                Vec::new()
            }
            Err(why) => return Err(why.into()),
        };
        let mut origin = Origin::whole(Vendor::Nvidia, DRIVER, &name, &pci);
        let mut whole = memory::of(&card, listed.parent.as_str(), more)?.map(|memory| Mib(memory.total >> 20));
        whole = whole.filter(|memory| memory.0 > 0).or(options.memory);
        let mut told = facts::of_card(nvml, &card, &roots.sys, &pci);
        told.memory = whole.unwrap_or_default();
        let (handle, index, lanes) = match listed.instance {
            Some(place) => (card.mig_device_by_index(place)?, mig::index(minor, place), Lanes::new()),
            None => {
                let lanes = lanes(&card);
                (card, minor, lanes)
            }
        };
        let model = handle.name().unwrap_or_default();
        let mut own = whole;
        if listed.instance.is_some() {
            // without them its device files are not known, nor which of its GPU's instances it is
            let ids = more.map_or(Err(NvmlError::FunctionNotFound.to_string()), |more| {
                more.instance(listed.id.as_str()).map_err(|error| error.to_string())
            });
            let ids = ids.or_else(|why| mig::spelled(listed.id.as_str()).ok_or(why));
            let (gi, ci) = ids.map_err(|why| ScanIssue::NoAnswer(format!("ids of the instance: {why}")))?;
            nodes.extend(mig::nodes(roots, minor, (gi, ci)));
            let profile = model.rsplit_once("MIG ").map_or("", |(_, profile)| profile);
            origin.part = Part::Instance { gi, ci, profile: profile.into() };
            origin.name = format!("{name}/gi{gi}").into();
            told.instance = facts::of_instance(&handle);
            own = memory::of(&handle, listed.id.as_str(), more)?.map(|memory| Mib(memory.total >> 20));
            own = own.filter(|memory| memory.0 > 0);
        }
        if own.is_none() {
            notes.push(ScanIssue::NoMemory);
        }
        let memory = own.unwrap_or_default();
        let device = Device { model: model.into(), numa, ..Device::new(listed.id.clone(), index, memory) };
        let facts = Facts::Nvidia(Arc::new(told));
        let host = HostDevice { pci, nodes, control_nodes, facts, ..HostDevice::new(device, origin) };
        Ok(Self { host, notes, handle, lanes })
    }
}

/// The PCI address of a GPU, as sysfs spells it.
pub(super) fn address(card: &NvmlDevice<'_>) -> Option<String> {
    card.pci_info().ok().map(|pci| roots::short_domain(&pci.bus_id))
}

/// A GPU's PCI address, empty where it has none, and the minor of its device file: as the library has them, else as the
/// driver's files have them. Of a single GPU the single device file is its own.
fn place(nvml: &Nvml, roots: &Roots, listed: &Listed, card: &NvmlDevice<'_>) -> Result<(String, u32), Refused> {
    let (pci, minor) = (address(card), card.minor_number());
    if let (Some(pci), Ok(minor)) = (&pci, &minor) {
        return Ok((pci.clone(), *minor));
    }
    let known = files::place(roots, listed.parent.as_str(), pci.as_deref().unwrap_or_default());
    let minor = match (minor, &known) {
        (Ok(minor), _) => minor,
        (Err(_), Some((_, minor))) => *minor,
        (Err(error), None) if memory::unknown(&error) => {
            let files = roots::numbered(&roots.dev, DRIVER).unwrap_or_default();
            let single = files.first().filter(|_| files.len() == 1 && nvml.device_count().is_ok_and(|n| n == 1));
            *single.ok_or(ScanIssue::NoMinor)?
        }
        (Err(error), None) => return Err(error.into()),
    };
    Ok((pci.or_else(|| known.map(|(pci, _)| pci)).unwrap_or_default(), minor))
}

fn lanes(card: &NvmlDevice<'_>) -> Lanes {
    let links = (0..MAX_LANES).map(|lane| card.link_wrapper_for(lane));
    let active = links.filter(|link| link.is_active().unwrap_or(false));
    let ends = active.filter_map(|link| Some(roots::short_domain(&link.remote_pci_info().ok()?.bus_id)));
    ends.fold(Lanes::new(), |mut lanes, address| {
        *lanes.entry(address).or_default() += 1;
        lanes
    })
}

/// Adds the links between all of them.
pub(super) fn linked(cards: &[Card<'_>]) -> Vec<HostDevice> {
    let addresses: Vec<String> = cards.iter().map(|card| card.host.pci.clone()).collect();
    let link = |a: &Card<'_>, b: &Card<'_>| {
        let ends = ((a.host.pci.as_str(), &a.lanes), (b.host.pci.as_str(), &b.lanes));
        facts::nvlink(ends.0, ends.1, &addresses).or_else(|| {
            // the wrapper takes the other handle by value
            let other = b.handle.nvml().device_by_pci_bus_id(b.host.pci.as_str()).ok()?;
            a.handle.topology_common_ancestor(other).ok().map(|level| facts::path(&level))
        })
    };
    let links = |a: &Card<'_>| -> BTreeMap<u32, Link> {
        let others = cards.iter().filter(|b| b.host.device.id != a.host.device.id);
        others.filter_map(|b| Some((b.host.device.index, link(a, b)?))).collect()
    };
    let with_links = |card: &Card<'_>| {
        let mut host = card.host.clone();
        host.device.links = links(card);
        host
    };
    cards.iter().map(with_links).collect()
}
