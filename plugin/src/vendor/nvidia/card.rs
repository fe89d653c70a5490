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
use crate::vendor::nvidia::facts::{self, Lanes};
use crate::vendor::nvidia::mig;

/// The kernel's driver.
const DRIVER: &str = "nvidia";
/// More lanes than any GPU has.
const MAX_LANES: u32 = 36;

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

/// The GPU at NVML's `index`, or with `mig` its instances where it is partitioned.
pub(super) fn listed(index: u32, card: &NvmlDevice<'_>, mig: bool) -> Result<Vec<Listed>, NvmlError> {
    let parent = DeviceId::from(card.uuid()?.as_str());
    // older drivers and GPUs that cannot be partitioned have no mode
    let cut = mig && card.mig_mode().is_ok_and(|mode| mode.current == 1);
    if !cut {
        return Ok(vec![Listed { index, instance: None, id: parent.clone(), parent }]);
    }
    let mut instances = Vec::new();
    for place in 0..card.mig_device_count()? {
        // some places may be empty
        let Ok(uuid) = card.mig_device_by_index(place).and_then(|instance| instance.uuid()) else { continue };
        let id = DeviceId::from(uuid.as_str());
        instances.push(Listed { index, instance: Some(place), id, parent: parent.clone() });
    }
    Ok(instances)
}

/// A GPU while its links are being found.
pub(super) struct Card<'a> {
    pub(super) host: HostDevice,
    handle: NvmlDevice<'a>,
    lanes: Lanes,
}

impl<'a> Card<'a> {
    /// The facts of a GPU or of one of its instances. `card` is the GPU's handle; `more` tells the ids of
    /// instances.
    pub(super) fn of(
        nvml: &Nvml,
        more: Option<&kerf_nvml::Nvml>,
        listed: &Listed,
        card: NvmlDevice<'a>,
        roots: &Roots,
    ) -> Result<Self, NvmlError> {
        let minor = card.minor_number()?;
        let pci = facts::sysfs_address(&card.pci_info()?.bus_id);
        let numa = roots::numa(&facts::pci_device(&roots.sys, &pci)).ok().flatten();
        let name = format!("nvidia{minor}");
        let (mut nodes, control_nodes) = (Vec::from_iter(roots.node(&name)), facts::control_nodes(roots));
        let mut origin = Origin::whole(Vendor::Nvidia, DRIVER, &name, &pci);
        let mut told = facts::of_card(nvml, &card, &roots.sys, &pci);
        let (handle, index, lanes) = match listed.instance {
            Some(place) => (card.mig_device_by_index(place)?, mig::index(minor, place), Lanes::new()),
            None => {
                let lanes = lanes(&card);
                (card, minor, lanes)
            }
        };
        let model = handle.name().unwrap_or_default();
        if listed.instance.is_some() {
            let ids = more.map(|more| more.instance(listed.id.as_str())).transpose().inspect_err(|error| {
                tracing::debug!(gpu = %listed.id, %error, "ids of a MIG instance cannot be read");
            });
            let (gi, ci) = ids.ok().flatten().unwrap_or_default();
            nodes.extend(mig::nodes(roots, minor, (gi, ci)));
            let profile = model.rsplit_once("MIG ").map_or("", |(_, profile)| profile);
            origin.part = Part::Instance { gi, ci, profile: profile.into() };
            origin.name = format!("{name}/gi{gi}").into();
            told.instance = facts::of_instance(&handle);
        }
        let memory = Mib(handle.memory_info()?.total >> 20);
        let device = Device { model: model.into(), numa, ..Device::new(listed.id.clone(), index, memory) };
        let facts = Facts::Nvidia(Arc::new(told));
        let host = HostDevice { pci, nodes, control_nodes, facts, ..HostDevice::new(device, origin) };
        Ok(Self { host, handle, lanes })
    }
}

fn lanes(card: &NvmlDevice<'_>) -> Lanes {
    let links = (0..MAX_LANES).map(|lane| card.link_wrapper_for(lane));
    let active = links.filter(|link| link.is_active().unwrap_or(false));
    let ends = active.filter_map(|link| Some(facts::sysfs_address(&link.remote_pci_info().ok()?.bus_id)));
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
