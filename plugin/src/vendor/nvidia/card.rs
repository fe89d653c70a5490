//! What the library tells of one GPU, and how GPUs are linked.

use std::collections::BTreeMap;
use std::sync::Arc;

use kerf::device::Device;
use kerf::units::Mib;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as NvmlDevice, Nvml};

use crate::device::backend::{HostDevice, Origin, Part, Vendor};
use crate::device::facts::Facts;
use crate::device::roots::Roots;
use crate::vendor::nvidia::facts::{self, Lanes};
use crate::vendor::nvidia::listed::Listed;
use crate::vendor::nvidia::mig;

/// The kernel's driver.
const DRIVER: &str = "nvidia";
/// More lanes than any GPU has.
const MAX_LANES: u32 = 36;

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
        let numa = facts::numa(&roots.sys, &pci);
        let (mut nodes, control_nodes) = facts::nodes(&roots.dev, minor);
        let mut origin = Origin::whole(Vendor::Nvidia, DRIVER, &format!("nvidia{minor}"), &pci);
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
            let ids = more.map(|more| more.instance(listed.id.as_str()));
            let (gi, ci) = ids
                .transpose()
                .unwrap_or_else(|error| {
                    tracing::debug!(gpu = %listed.id, %error, "ids of a MIG instance cannot be read");
                    None
                })
                .unwrap_or_default();
            nodes.extend(mig::nodes(roots, minor, (gi, ci)));
            let profile = model.rsplit_once("MIG ").map_or("", |(_, profile)| profile);
            origin.part = Part::Instance { gi, ci, profile: profile.into() };
            origin.name = format!("nvidia{minor}/gi{gi}").into();
            told.instance = facts::of_instance(&handle);
        }
        let mut device = Device::new(listed.id.clone(), index, Mib(handle.memory_info()?.total >> 20));
        device.model = model.into();
        device.numa = numa;
        let facts = Facts::Nvidia(Arc::new(told));
        let host = HostDevice { pci, nodes, control_nodes, facts, ..HostDevice::new(device, origin) };
        Ok(Self { host, handle, lanes })
    }
}

fn lanes(card: &NvmlDevice<'_>) -> Lanes {
    let mut lanes = Lanes::new();
    for lane in 0..MAX_LANES {
        let link = card.link_wrapper_for(lane);
        if !link.is_active().unwrap_or(false) {
            continue;
        }
        if let Ok(remote) = link.remote_pci_info() {
            let count = lanes.entry(facts::sysfs_address(&remote.bus_id)).or_default();
            *count = count.saturating_add(1);
        }
    }
    lanes
}

/// Adds the links between all of them.
pub(super) fn linked(cards: Vec<Card<'_>>) -> Vec<HostDevice> {
    let addresses: Vec<String> = cards.iter().map(|card| card.host.pci.clone()).collect();
    let mut links: Vec<BTreeMap<u32, _>> = Vec::new();
    for a in &cards {
        let others = cards.iter().filter(|b| b.host.device.id != a.host.device.id);
        links.push(
            others
                .filter_map(|b| {
                    let ends = ((a.host.pci.as_str(), &a.lanes), (b.host.pci.as_str(), &b.lanes));
                    let link = facts::nvlink(ends.0, ends.1, &addresses).or_else(|| {
                        // the wrapper takes the other handle by value
                        let other = b.handle.nvml().device_by_pci_bus_id(b.host.pci.as_str()).ok()?;
                        a.handle.topology_common_ancestor(other).ok().map(|level| facts::path(&level))
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
