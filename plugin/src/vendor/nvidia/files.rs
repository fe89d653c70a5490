//! NVIDIA GPUs without the management library: from the driver's files in `/proc`, or the device files alone.
//!
//! `/proc/driver/nvidia/gpus/<address>/information` names UUID, model and device minor. Where the driver shows no
//! such directory (a container sees only `/dev`), each `/dev/nvidia<N>` is a GPU with the id `nvidia<N>`. Neither
//! tells the size of a GPU's memory, its health or its usage: with this backend a GPU is healthy while its files
//! exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use kerf::device::Device;
use kerf::units::Mib;

use crate::device::backend::{BackendError, HostDevice, Origin, Part, Usage, Vendor};
use crate::device::facts::{Facts, NvidiaFacts};
use crate::device::roots::{self, Fault, Roots};
use crate::device::scan::{self, Remark, Scan, ScanIssue};
use crate::vendor::nvidia::missing::{self, DRIVER, VENDOR, directory};
use crate::vendor::nvidia::{facts, mig};
use crate::vendor::scanner::{Files, Scanner};

/// Without these two no program can use a GPU.
const NEEDED: [&str; 2] = ["nvidiactl", "nvidia-uvm"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesOptions {
    /// Where the host's files are mounted.
    pub roots: Roots,
    /// Profile of all instances (`3g.20gb`), which the files do not tell.
    pub instance_profile: String,
    /// The memory of each GPU, which the files do not tell, where a person has said it.
    pub memory: Option<Mib>,
}

impl Files for FilesOptions {
    const NAME: &'static str = "nvidia-files";

    fn scan(&self) -> Result<Scan, BackendError> {
        let roots = &self.roots;
        if let Some(name) = NEEDED.iter().find(|name| roots.node(name).is_none()) {
            let reason = format!("the host has no device file /dev/{name}: the driver is not loaded (yet)");
            return Err(BackendError::Unavailable { backend: Self::NAME, reason });
        }
        let mut scan = Scan::default();
        let table = scan.noted("mig-minors", mig::table(roots));
        let listed = scan.noted("cards", roots::if_there(roots::names(&directory(roots))));
        let cards = match listed {
            Some(addresses) => informed(roots, &addresses, &mut scan),
            None => bare(roots),
        };
        for card in cards {
            let subject = card.subject().to_owned();
            if let Err(why) = add(self, &table, card, &mut scan) {
                scan.leave_out(&subject, why);
            }
        }
        Ok(scan.settle())
    }

    fn missing(&self, scan: Result<&Scan, &BackendError>) -> Vec<Remark> {
        let unavailable = scan.err().map(|error| ScanIssue::Unavailable(error.to_string()));
        let why = |_: &str| unavailable.clone().unwrap_or_else(|| ScanIssue::NotListed(DRIVER.to_owned()));
        let (hosts, remarks) = scan.map_or((&[][..], &[][..]), |scan| (&scan.devices[..], &scan.remarks[..]));
        let told = remarks.iter().filter(|remark| remark.left_out).map(|remark| remark.subject.clone());
        missing::missing(&self.roots, hosts, told.collect(), why)
    }

    fn usage(scanner: &Scanner<Self>) -> Result<Usage, BackendError> {
        scanner.files.scan().map(|_| Usage::default())
    }
}

/// GPUs of `/proc/driver/nvidia/gpus`.
fn informed(roots: &Roots, addresses: &[String], scan: &mut Scan) -> Vec<HostDevice> {
    let mut cards = Vec::new();
    for address in addresses {
        match information(roots, address) {
            Ok(mut card) => {
                card.device.numa = scan.noted(address, roots::numa(&facts::pci_device(&roots.sys, address)));
                cards.push(card);
            }
            Err(why) => scan.leave_out(address, why),
        }
    }
    cards
}

fn information(roots: &Roots, address: &str) -> Result<HostDevice, ScanIssue> {
    let path = directory(roots).join(address).join("information");
    if !roots::is_address(address) {
        return Err(Fault::malformed(&path, address, "a PCI address as the directory's name").into());
    }
    // where the bus is shown at all, a GPU that it does not show is gone, whatever the driver's files say
    let bus = roots.sys.join("bus/pci/devices");
    if roots::names(&bus).is_ok_and(|names| !names.is_empty()) && !bus.join(address).exists() {
        return Err(ScanIssue::Lost(directory(roots).join(address)));
    }
    let text = roots::text(&path)?;
    let field = |name: &'static str| {
        let line = text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name));
        line.map(|(_, value)| value.trim().to_owned())
    };
    // the second is the word of older drivers
    if ["GPU Excluded", "Blacklisted"].iter().any(|name| field(name).is_some_and(|value| value == "Yes")) {
        return Err(ScanIssue::Excluded(path));
    }
    let needed = |name: &'static str| field(name).ok_or_else(|| Fault::malformed(&path, "", name));
    let (id, location, minor) = (needed("GPU UUID")?, needed("Bus Location")?, needed("Device Minor")?);
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !id.starts_with("GPU-") || id.len() > 48 || !id.chars().all(legal) {
        return Err(Fault::malformed(&path, &id, "GPU UUID: GPU-<uuid>").into());
    }
    if roots::short_domain(&location) != address {
        return Err(ScanIssue::Foreign { name: address.to_owned(), owner: location });
    }
    let minor = minor.parse().map_err(|_| Fault::malformed(&path, &minor, "Device Minor: a number"))?;
    let vendor = roots::hex(&facts::pci_device(&roots.sys, address).join("vendor"));
    if let Some(other) = roots::if_there(vendor)?.filter(|vendor| *vendor != VENDOR) {
        return Err(ScanIssue::Foreign { name: address.to_owned(), owner: format!("vendor 0x{other:04x}") });
    }
    let mut card = card(&id, minor, address);
    card.device.model = field("Model").unwrap_or_default().into();
    Ok(card)
}

/// The address and the minor of the GPU with this id or address, as the driver's directory has them.
pub(super) fn place(roots: &Roots, id: &str, pci: &str) -> Option<(String, u32)> {
    let addresses = roots::names(&directory(roots)).ok()?;
    let mut cards = addresses.iter().filter_map(|address| information(roots, address).ok());
    let card = cards.find(|card| card.device.id.as_str() == id || card.pci == pci)?;
    Some((card.pci, card.device.index))
}

/// GPUs of `/dev` alone.
fn bare(roots: &Roots) -> Vec<HostDevice> {
    let minors = roots::numbered(&roots.dev, "nvidia").unwrap_or_default();
    minors.into_iter().map(|minor| card(&format!("nvidia{minor}"), minor, "")).collect()
}

/// The files tell neither a GPU's memory nor the profile of an instance, which would tell its part of it.
fn card(id: &str, minor: u32, pci: &str) -> HostDevice {
    let origin = Origin::whole(Vendor::Nvidia, DRIVER, &format!("nvidia{minor}"), pci);
    HostDevice { pci: pci.to_owned(), ..HostDevice::new(Device::new(id, minor, Mib(0)), origin) }
}

fn add(
    options: &FilesOptions,
    table: &BTreeMap<(u32, mig::Instance), mig::Minors>,
    mut host: HostDevice,
    scan: &mut Scan,
) -> Result<(), ScanIssue> {
    let roots = &options.roots;
    let (name, id, minor) = (Arc::clone(&host.origin.name), host.device.id.clone(), host.device.index);
    host.nodes = vec![scan::node(roots, &name)?];
    host.control_nodes = facts::control_nodes(roots);
    host.facts = Facts::Nvidia(Arc::new(NvidiaFacts {
        gpu: if id.as_str() == &*name { "".into() } else { id.as_str().into() },
        model: Arc::clone(&host.device.model),
        driver: facts::driver_version(&roots.proc).into(),
        class: facts::class(&roots.sys, &host.pci),
        machine: facts::machine(&roots.sys).into(),
        ..NvidiaFacts::default()
    }));
    let existing = mig::of_card(roots, minor)?;
    if existing.is_empty() {
        match options.memory {
            Some(memory) => host.device.memory = memory,
            None => scan.note(&name, ScanIssue::NoMemory),
        }
        scan.devices.push(host);
        return Ok(());
    }
    for (&(gi, ci), minors) in &existing {
        let alone = existing.keys().filter(|(other, _)| *other == gi).count() == 1;
        let part = if alone { format!("gi{gi}") } else { format!("gi{gi}/ci{ci}") };
        let own = format!("{name}/{part}");
        // where the kernel's table knows the instance, both must agree
        let agree = table.get(&(minor, (gi, ci))).is_none_or(|known| known == minors);
        let files: Result<Vec<_>, _> = if agree {
            minors.iter().map(|file| scan::node(roots, &mig::file(*file))).collect()
        } else {
            Err(ScanIssue::Foreign { name: own.clone(), owner: "mig-minors".to_owned() })
        };
        let files = match files {
            Ok(files) => files,
            Err(why) => {
                scan.leave_out(&own, why);
                continue;
            }
        };
        let mut host = host.clone();
        host.nodes.extend(files);
        // the driver's older spelling of an instance: its GPU's UUID and the two numbers
        let spelled = if id.as_str() == &*name { own.clone() } else { format!("MIG-{id}/{gi}/{ci}") };
        host.device.id = spelled.into();
        host.origin.name = own.as_str().into();
        host.origin.part = Part::Instance { gi, ci, profile: options.instance_profile.as_str().into() };
        scan.note(&own, ScanIssue::NoMemory);
        scan.devices.push(host);
    }
    Ok(())
}
