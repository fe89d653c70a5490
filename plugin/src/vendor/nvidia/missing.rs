//! NVIDIA GPUs that the PCI bus, the driver's files in `/proc` or its device files show and that are not offered.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::device::backend::HostDevice;
use crate::device::pci;
use crate::device::roots::{self, Roots};
use crate::device::scan::{Remark, ScanIssue};

/// NVIDIA's PCI id.
pub(super) const VENDOR: u32 = 0x10de;
/// The kernel's driver.
pub(super) const DRIVER: &str = "nvidia";

/// The GPUs of the driver's directory, by address.
pub(super) fn directory(roots: &Roots) -> PathBuf {
    roots.proc.join("driver/nvidia/gpus")
}

/// What may bring GPUs although the library shows none: one on the bus that no other driver has, or the files of the
/// driver.
pub fn awaited(roots: &Roots) -> Option<String> {
    let mut gpus = pci::gpus(roots, VENDOR).into_iter();
    let own = gpus.find(|gpu| !gpu.function && gpu.driver.as_deref().is_none_or(|driver| driver == DRIVER));
    let on_bus = own.map(|gpu| format!("{} is on the PCI bus", gpu.address));
    let file = || roots.node("nvidiactl").map(|file| format!("the host has {}", file.display()));
    let listed = || directory(roots).exists().then(|| format!("the host has {}", directory(roots).display()));
    on_bus.or_else(file).or_else(listed)
}

/// A remark for each GPU that is neither among `hosts` nor told of already, by its address or the name of its device
/// file. `why` says of one that its driver has, by these, why it is not offered.
pub(super) fn missing(
    roots: &Roots,
    hosts: &[HostDevice],
    told: BTreeSet<String>,
    mut why: impl FnMut(&str) -> ScanIssue,
) -> Vec<Remark> {
    let mut known = told;
    known.extend(hosts.iter().map(|host| host.pci.clone()));
    // of GPUs without an address it is not known which of the bus they are
    let placed = hosts.iter().all(|host| !host.pci.is_empty());
    let mut out = pci::left_out(roots, VENDOR, &[DRIVER], &known, &mut why);
    if !placed {
        let other = |remark: &Remark| matches!(remark.why, ScanIssue::NoDriver | ScanIssue::Driver(_));
        out.retain(other);
        return out;
    }
    known.extend(out.iter().map(|remark| remark.subject.clone()));
    let bus: BTreeSet<String> = pci::gpus(roots, VENDOR).into_iter().map(|gpu| gpu.address).collect();
    let listed = roots::names(&directory(roots)).unwrap_or_default();
    for address in listed.iter().filter(|address| roots::is_address(address) && !known.contains(*address)) {
        let fallen = !bus.is_empty() && !bus.contains(address);
        let why = if fallen { ScanIssue::Lost(directory(roots).join(address)) } else { why(address) };
        out.push(Remark { subject: address.clone(), left_out: true, why });
    }
    // a device file may outlive its GPU, so it counts only where nothing else shows what there is
    if bus.is_empty() && listed.is_empty() {
        let names = roots::numbered(&roots.dev, DRIVER).unwrap_or_default().into_iter();
        let names = names.map(|minor| format!("{DRIVER}{minor}"));
        let of_host = |name: &str| hosts.iter().any(|host| &*host.origin.name == name);
        let unknown = names.filter(|name| !known.contains(name) && !of_host(name));
        out.extend(unknown.map(|name| Remark { left_out: true, why: why(&name), subject: name }));
    }
    out
}
