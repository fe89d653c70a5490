//! GPUs on the PCI bus, whether a driver serves them or not: the list against which a driver's own is held, so that
//! no GPU is missing without a word.

use std::collections::BTreeSet;

use crate::device::roots::{self, Roots};
use crate::device::scan::{Remark, ScanIssue};

/// Base class of display controllers.
const DISPLAY: u32 = 0x03;
/// Base class of processing accelerators, which some GPUs without a display have.
const ACCELERATOR: u32 = 0x12;

/// A GPU as the bus shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciGpu {
    /// As sysfs spells it: `0000:3b:00.0`.
    pub address: String,
    /// The kernel's driver that is bound to it.
    pub driver: Option<String>,
    /// Whether it is a function (SR-IOV) of a GPU of this machine.
    pub function: bool,
    /// Whether it is a display controller, and no accelerator of another kind.
    pub display: bool,
    /// Whether its driver has made files of it.
    pub ready: bool,
}

/// The GPUs of a vendor by its PCI id, in order of address. Empty where the bus cannot be read.
pub fn gpus(roots: &Roots, vendor: u32) -> Vec<PciGpu> {
    let bus = roots.sys.join("bus/pci/devices");
    let addresses = roots::names(&bus).unwrap_or_default();
    let gpu = |address: String| {
        let dir = bus.join(&address);
        // most devices are no GPUs: of those this is the only file that is read
        let class = roots::hex(&dir.join("class")).ok()? >> 16;
        let ours = matches!(class, DISPLAY | ACCELERATOR) && roots::hex(&dir.join("vendor")).ok()? == vendor;
        ours.then(|| PciGpu {
            driver: roots::target_name(&dir.join("driver")),
            function: dir.join("physfn").exists(),
            display: class == DISPLAY,
            ready: dir.join("drm").exists(),
            address,
        })
    };
    addresses.into_iter().filter(|address| roots::is_address(address)).filter_map(gpu).collect()
}

/// A remark for each GPU of a vendor that is neither in `known`, by its address, nor bound to nothing as a function
/// of a known GPU. `drivers`: the kernel's drivers that are served; of a GPU that is bound to one of them `why`
/// says, by its address, why it is not offered.
pub fn left_out(
    roots: &Roots,
    vendor: u32,
    drivers: &[&str],
    known: &BTreeSet<String>,
    mut why: impl FnMut(&str) -> ScanIssue,
) -> Vec<Remark> {
    let served = |gpu: &PciGpu| gpu.driver.as_deref().is_some_and(|driver| drivers.contains(&driver));
    let unknown = gpus(roots, vendor).into_iter().filter(|gpu| !known.contains(&gpu.address));
    // what a hypervisor gives to its guests is not this machine's to offer
    let own = unknown.filter(|gpu| !gpu.function || served(gpu));
    own.map(|gpu| {
        let why = match &gpu.driver {
            None => ScanIssue::NoDriver,
            Some(_) if served(&gpu) => why(&gpu.address),
            Some(driver) => ScanIssue::Driver(driver.clone()),
        };
        Remark { subject: gpu.address, left_out: true, why }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_no_driver_lists_is_told_with_what_is_bound_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots { sys: dir.path().to_owned(), ..Roots::default() };
        assert_eq!(gpus(&roots, 0x10de), []);
        let device = |address: &str, vendor: &str, class: &str, driver: Option<&str>, function: bool| {
            let at = dir.path().join("bus/pci/devices").join(address);
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join("vendor"), vendor).unwrap();
            std::fs::write(at.join("class"), class).unwrap();
            if let Some(driver) = driver {
                std::os::unix::fs::symlink(format!("../../../bus/pci/drivers/{driver}"), at.join("driver"))
                    .unwrap();
            }
            if function {
                std::fs::create_dir(at.join("physfn")).unwrap();
            }
        };
        device("0000:01:00.0", "0x10de", "0x030200", Some("nvidia"), false);
        device("0000:02:00.0", "0x10de", "0x030000", Some("vfio-pci"), false);
        device("0000:03:00.0", "0x10de", "0x030000", None, false);
        device("0000:04:00.0", "0x10de", "0x120000", Some("nvidia"), false);
        device("0000:05:00.4", "0x10de", "0x030200", None, true);
        device("0000:05:00.5", "0x10de", "0x030200", Some("nvidia"), true);
        device("0000:06:00.0", "0x10de", "0x040300", None, false);
        device("0000:07:00.0", "0x8086", "0x030000", None, false);
        device("pci0000:00", "0x10de", "0x030000", None, false);
        let known = BTreeSet::from(["0000:01:00.0".to_owned()]);
        let why = |_: &str| ScanIssue::NotListed("nvidia".to_owned());
        let told: Vec<_> = left_out(&roots, 0x10de, &["nvidia"], &known, why)
            .into_iter()
            .map(|remark| (remark.subject, remark.why.code(), remark.left_out))
            .collect();
        let wanted = [
            ("0000:02:00.0", "unknown-driver"),
            ("0000:03:00.0", "no-driver"),
            ("0000:04:00.0", "not-listed"),
            ("0000:05:00.5", "not-listed"),
        ];
        assert_eq!(told, wanted.map(|(address, code)| (address.to_owned(), code, true)));
    }
}
