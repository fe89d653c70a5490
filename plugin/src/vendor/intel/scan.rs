//! Intel GPUs, from sysfs: `/sys/class/drm/card<N>` with the drivers `i915` and `xe`; those of a Windows host are
//! in `wsl`.
//!
//! A GPU is listed if its directory names it and the host has a device file for it. An SR-IOV GPU with functions is
//! represented by them. Its PCI address is part of the target of its link in `/sys/class/drm`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kerf::device::Device;
use kerf::units::Mib;

use crate::device::backend::{BackendError, HostDevice, Origin, Part, Vendor};
use crate::device::facts::{Facts, IntelFacts};
use crate::device::pci;
use crate::device::roots::{self, Fault, Roots};
use crate::device::scan::{Remark, Scan, ScanIssue};
use crate::vendor::intel::health::Reporter;
use crate::vendor::scanner::Files;

const VENDOR: u32 = 0x8086;
/// Drivers whose GPUs containers can use; also the kinds of resources.
pub const DRIVERS: [&str; 2] = ["i915", "xe"];

#[derive(Clone, Debug, Default, PartialEq)]
pub struct IntelOptions {
    /// Where the host's files are mounted.
    pub roots: Roots,
    /// Also asked about the GPUs' health, where configured.
    pub sidecar: Option<Reporter>,
}

impl Files for IntelOptions {
    const NAME: &'static str = "intel";

    fn scan(&self) -> Result<Scan, BackendError> {
        let class = self.roots.sys.join("class/drm");
        let numbers = roots::numbered(&class, "card")
            .map_err(|fault| BackendError::Unavailable { backend: Self::NAME, reason: fault.to_string() })?;
        let mut scan = Scan::default();
        for number in numbers {
            let name = format!("card{number}");
            match card(&self.roots, &class.join(&name), number, &mut scan) {
                Ok(Some(host)) => scan.devices.push(host),
                Ok(None) => {}
                Err(why) => scan.leave_out(&name, why),
            }
        }
        let functions = scan.devices.iter().filter(|host| host.origin.part == Part::Function);
        let in_parts: BTreeSet<String> = functions.map(|host| host.origin.card.to_string()).collect();
        for remark in &mut scan.remarks {
            if let ScanIssue::Functions(count) = remark.why
                && !address(&class.join(&remark.subject)).is_ok_and(|own| in_parts.contains(&own))
            {
                remark.why = ScanIssue::FunctionsElsewhere(count);
            }
        }
        Ok(scan.settle())
    }

    fn missing(&self, scan: Result<&Scan, &BackendError>) -> Vec<Remark> {
        let devices = scan.iter().flat_map(|scan| scan.devices.iter().map(|host| host.pci.clone()));
        let told = scan.iter().flat_map(|scan| scan.remarks.iter().filter(|remark| remark.left_out));
        let class = self.roots.sys.join("class/drm");
        let told = told.filter_map(|remark| address(&class.join(&remark.subject)).ok());
        // accelerators of Intel's processors are no GPUs
        let others = pci::gpus(&self.roots, VENDOR).into_iter().filter(|gpu| !gpu.display).map(|gpu| gpu.address);
        let known: BTreeSet<String> = devices.chain(told).chain(others).collect();
        let mut out = pci::left_out(&self.roots, VENDOR, &DRIVERS, &known, |address| match scan {
            Ok(_) => ScanIssue::NotListed(self.driver(address)),
            Err(error) => ScanIssue::Unavailable(error.to_string()),
        });
        // of a GPU without an address it is not known which of the bus it is
        out.retain(|remark| !known.contains("") || !matches!(remark.why, ScanIssue::NotListed(_)));
        out
    }

    fn unhealthy(&self, hosts: &[HostDevice]) -> Result<Vec<String>, Remark> {
        self.sidecar.as_ref().map_or(Ok(Vec::new()), |sidecar| sidecar.unhealthy(hosts))
    }
}

/// What may bring GPUs although sysfs shows none that can be used: one on the bus, other than the processor's, whose
/// driver is not bound or not ready yet.
pub(super) fn awaited(roots: &Roots) -> Option<String> {
    let gpus = pci::gpus(roots, VENDOR).into_iter().filter(|gpu| gpu.display && !gpu.function && !gpu.ready);
    let mut own = gpus.filter(|gpu| !is_of_the_processor(&gpu.address));
    let gpu = own.find(|gpu| gpu.driver.as_deref().is_none_or(|driver| DRIVERS.contains(&driver)))?;
    Some(format!("{} is on the PCI bus", gpu.address))
}

impl IntelOptions {
    /// The kernel's driver of the device at a PCI address.
    fn driver(&self, address: &str) -> String {
        let device = self.roots.sys.join("bus/pci/devices").join(address);
        roots::target_name(&device.join("driver")).unwrap_or_default()
    }
}

/// A GPU, or `None` where it is another vendor's.
fn card(roots: &Roots, dir: &Path, number: u32, scan: &mut Scan) -> Result<Option<HostDevice>, ScanIssue> {
    let name = format!("card{number}");
    let device_dir = dir.join("device");
    match roots::hex(&device_dir.join("vendor")) {
        Ok(VENDOR) => {}
        Ok(_) => return Ok(None),
        // what is not on the PCI bus is no GPU of Intel's: a virtual card, or a partition of another vendor's
        Err(Fault::Missing(_)) if address(dir).is_err() => return Ok(None),
        Err(fault) => return Err(fault.into()),
    }
    let model_id = roots::hex(&device_dir.join("device")).map(|id| format!("0x{id:04x}"));
    let model_id = scan.noted(&name, model_id);
    // with a fault it is unknown whether its functions are used, and a GPU must not be given out twice
    let functions = roots::if_there(roots::number::<u32>(&device_dir.join("sriov_numvfs")))?;
    if let Some(count) = functions.filter(|count| *count > 0) {
        return Err(ScanIssue::Functions(count));
    }
    let driver = match roots::target_name(&device_dir.join("driver")) {
        Some(driver) if DRIVERS.contains(&driver.as_str()) => driver,
        Some(driver) => return Err(ScanIssue::Driver(driver)),
        None => DRIVERS[0].to_owned(),
    };
    let nodes = nodes(roots, &device_dir.join("drm"), number)?;
    let pci = scan.noted(&name, address(dir));
    let parent = roots::target_name(&device_dir.join("physfn")).filter(|parent| roots::is_address(parent));
    let part = if parent.is_some() { Part::Function } else { Part::Whole };
    let id = if pci.is_empty() { name.clone() } else { pci.clone() };
    let tiles = tiles(dir);
    let told = scan.noted(&name, memory(dir, &device_dir, tiles));
    let unknown = told.unwrap_or(0) == 0;
    let integrated = unknown && is_of_the_processor(&pci);
    if unknown {
        scan.note(&name, if integrated { ScanIssue::NoOwnMemory } else { ScanIssue::NoMemory });
    }
    let memory = told.or_else(|| integrated.then_some(0));
    let model = format!("Intel {model_id}").trim_end().into();
    // optional on real systems without NUMA
    let numa = scan.noted(&name, roots::if_there(roots::numa(&device_dir))).flatten();
    let device = Device { model, numa, ..Device::new(id.as_str(), number, Mib(memory.unwrap_or(0) >> 20)) };
    let origin = Origin {
        vendor: Vendor::Intel,
        driver: driver.into(),
        name: name.as_str().into(),
        card: parent.unwrap_or(id).into(),
        part,
        layout: "".into(),
        model_id: model_id.into(),
        integrated,
    };
    // the last two digits are the programming interface
    let class =
        roots::hex(&device_dir.join("class")).map(|class| format!("{:04x}", class >> 8)).unwrap_or_default();
    let facts = Facts::Intel(Arc::new(IntelFacts { class: class.into(), tiles, memory }));
    let dri_links = by_path(roots, &pci);
    let monitoring_nodes = monitoring_nodes(roots, &name);
    Ok(Some(HostDevice { pci, nodes, dri_links, monitoring_nodes, facts, ..HostDevice::new(device, origin) }))
}

/// The GPU's device files that the host has: of `card<N>` and `renderD<M>` below `device/drm`, not `controlD<K>`.
fn nodes(roots: &Roots, drm: &Path, number: u32) -> Result<Vec<PathBuf>, ScanIssue> {
    let cards = roots::numbered(drm, "card")?;
    // both numbers must be the same, or its files are another GPU's
    if let Some(card) = cards.iter().find(|card| **card != number) {
        return Err(ScanIssue::Foreign { name: format!("card{number}"), owner: format!("card{card}") });
    }
    let renders = roots::numbered(drm, "renderD")?.into_iter().map(|minor| format!("dri/renderD{minor}"));
    let named = cards.iter().map(|card| format!("dri/card{card}")).chain(renders);
    let nodes: Vec<PathBuf> = named.filter_map(|name| roots.node(&name)).collect();
    if nodes.is_empty() {
        return Err(ScanIssue::NoDeviceFile(Path::new("/dev/dri").join(format!("card{number}"))));
    }
    Ok(nodes)
}

/// The PCI address in the link's target: the component before `/drm/card<N>`.
fn address(link: &Path) -> Result<String, Fault> {
    let target = std::fs::read_link(link).map_err(|error| Fault::Unreadable {
        path: link.to_owned(),
        reason: format!("no link that leads to its PCI address: {error}"),
    })?;
    let device = target.parent().and_then(Path::parent);
    let name = device.and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    match target.parent().and_then(Path::file_name) {
        Some(drm) if drm == "drm" && roots::is_address(name) => Ok(name.to_owned()),
        _ => Err(Fault::malformed(link, &target.display().to_string(), "a link to .../<PCI address>/drm/card<N>")),
    }
}

/// Tiles of a GPU: `gt/gt<T>` with i915, `device/tile<T>` with xe.
fn tiles(dir: &Path) -> u64 {
    let count = |dir: PathBuf, prefix| roots::numbered(&dir, prefix).map_or(0, |tiles| tiles.len() as u64);
    count(dir.join("gt"), "gt").max(count(dir.join("device"), "tile")).max(1)
}

/// Bytes of local memory, where they are known: xe tells that of each tile, i915 as Intel packages it that of one.
/// The kernel's own i915 tells none.
fn memory(dir: &Path, device: &Path, tiles: u64) -> Result<Option<u64>, Fault> {
    let mut sum = None;
    for tile in roots::numbered(device, "tile")? {
        let path = device.join(format!("tile{tile}")).join("physical_vram_size_bytes");
        if let Some(bytes) = roots::if_there(bytes(&path))? {
            sum = Some(sum.unwrap_or(0u64).saturating_add(bytes));
        }
    }
    if sum.is_some() {
        return Ok(sum);
    }
    let of_one = roots::if_there(roots::number::<u64>(&dir.join("lmem_total_bytes")))?;
    Ok(of_one.map(|bytes| bytes.saturating_mul(tiles)))
}

/// A number of bytes, decimal or with `0x`: kernels differ.
fn bytes(path: &Path) -> Result<u64, Fault> {
    let text = roots::text(path)?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| Fault::malformed(path, &text, "a number of bytes"))
}

/// Whether a PCI address is where the processor's own graphics are: device 2 of the first bus. Its functions share
/// the machine's memory, too.
fn is_of_the_processor(address: &str) -> bool {
    address.get(4..).is_some_and(|place| place.starts_with(":00:02."))
}

/// Links below `/dev/dri/by-path` that lead to a GPU's own files, without `-platform-…` and those of other GPUs.
pub fn by_path(roots: &Roots, address: &str) -> Vec<PathBuf> {
    let wanted = BTreeSet::from(["card", "render"].map(|kind| format!("pci-{address}-{kind}")));
    let there = roots::names(&roots.dev.join("dri/by-path")).unwrap_or_default();
    let paths = there.iter().filter(|name| roots::is_address(address) && wanted.contains(*name));
    paths.map(|name| Path::new("/dev/dri/by-path").join(name)).collect()
}

/// Files of a GPU's monitoring engine, `/dev/mei<K>`, as paths on the host.
pub fn monitoring_nodes(roots: &Roots, card: &str) -> Vec<PathBuf> {
    let device = roots.sys.join("class/drm").join(card).join("device");
    let engine = |name: &String| DRIVERS.iter().any(|d| roots::suffix(name, &format!("{d}.mei-gscfi.")).is_some());
    let engines = roots::names(&device).unwrap_or_default().into_iter().filter(engine);
    let numbers =
        engines.flat_map(|engine| roots::numbered(&device.join(engine).join("mei"), "mei").unwrap_or_default());
    numbers.filter_map(|number| roots.node(&format!("mei{number}"))).collect()
}
