//! Translates what NVML and sysfs tell into kerf's terms. Pure, or reading below a given root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kerf::device::Link;
use kerf::units::Mib;
use nvml_wrapper::enum_wrappers::device::TopologyLevel;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml, cuda_driver_version_major, cuda_driver_version_minor};

use crate::device::facts::{InstanceFacts, NvidiaFacts};
use crate::device::roots::{self, Roots};

/// Device files of the driver itself. A container needs those of them that the host has.
const CONTROL: [&str; 3] = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"];

/// The directory of a PCI device.
pub fn pci_device(sys_root: &Path, address: &str) -> PathBuf {
    sys_root.join("bus/pci/devices").join(address)
}

/// The PCI class of a GPU; `None` where sysfs does not tell.
pub fn class(sys_root: &Path, address: &str) -> Option<u32> {
    roots::hex(&pci_device(sys_root, address).join("class")).ok()
}

/// The machine's name in its firmware; empty where it has none.
pub fn machine(sys_root: &Path) -> String {
    roots::text(&sys_root.join("class/dmi/id/product_name")).unwrap_or_default()
}

/// The driver's version in `/proc/driver/nvidia/version`; empty where there is no such file.
pub fn driver_version(proc_root: &Path) -> String {
    let text = roots::text(&proc_root.join("driver/nvidia/version")).unwrap_or_default();
    let version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    let first = text.lines().next().unwrap_or_default();
    first.split_whitespace().find(version).unwrap_or_default().to_owned()
}

/// The facts for a GPU's labels that the library tells, but for its memory.
pub fn of_card(nvml: &Nvml, card: &Device<'_>, sys_root: &Path, address: &str) -> NvidiaFacts {
    let pair = |major: i32, minor: i32| Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?));
    let cuda = nvml.sys_cuda_driver_version().ok();
    let compute = card.cuda_compute_capability().ok();
    NvidiaFacts {
        gpu: card.uuid().unwrap_or_default().into(),
        model: card.name().unwrap_or_default().into(),
        memory: Mib(0),
        driver: nvml.sys_driver_version().unwrap_or_default().into(),
        cuda: cuda.and_then(|v| pair(cuda_driver_version_major(v), cuda_driver_version_minor(v))),
        compute: compute.and_then(|capability| pair(capability.major, capability.minor)),
        // a GPU that cannot be partitioned has no mode
        mig_capable: match card.mig_mode() {
            Ok(_) => Some(true),
            Err(NvmlError::NotSupported) => Some(false),
            Err(_) => None,
        },
        class: class(sys_root, address),
        machine: machine(sys_root).into(),
        instance: None,
    }
}

/// An instance's part of its GPU.
pub fn of_instance(instance: &Device<'_>) -> Option<InstanceFacts> {
    let told = instance.attributes().ok()?;
    Some(InstanceFacts {
        multiprocessors: told.multiprocessor_count,
        slices: [told.gpu_instance_slice_count, told.compute_instance_slice_count],
        engines: [
            told.shared_copy_engine_count,
            told.shared_decoder_count,
            told.shared_encoder_count,
            told.shared_jpeg_count,
            told.shared_ofa_count,
        ],
    })
}

/// The PCIe path between two GPUs.
pub fn path(level: &TopologyLevel) -> Link {
    match level {
        TopologyLevel::Internal | TopologyLevel::Single => Link::Switch,
        TopologyLevel::Multiple => Link::Switches,
        TopologyLevel::HostBridge => Link::HostBridge,
        TopologyLevel::Node => Link::Node,
        TopologyLevel::System => Link::System,
    }
}

/// Active NVLinks of one GPU: how many lead to each PCI address.
pub type Lanes = BTreeMap<String, u8>;

/// NVLinks between two GPUs. Lanes that do not lead to a GPU of this node lead to a switch, which joins all GPUs
/// that it reaches.
pub fn nvlink(a: (&str, &Lanes), b: (&str, &Lanes), cards: &[String]) -> Option<Link> {
    let direct = a.1.get(b.0).copied().unwrap_or(0).max(b.1.get(a.0).copied().unwrap_or(0));
    let switched = |lanes: &Lanes| -> u8 {
        let to_switches = lanes.iter().filter(|(address, _)| !cards.contains(address));
        to_switches.fold(0, |sum, (_, lanes)| sum.saturating_add(*lanes))
    };
    let lanes = direct.max(switched(a.1).min(switched(b.1)));
    (lanes > 0).then_some(Link::NvLink(lanes))
}

/// The driver's own device files, as paths on the host; missing files are left out.
pub fn control_nodes(roots: &Roots) -> Vec<PathBuf> {
    CONTROL.iter().filter_map(|name| roots.node(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nvlinks_are_direct_or_through_a_switch() {
        let cards = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let lanes = |list: &[(&str, u8)]| list.iter().map(|(to, n)| ((*to).to_owned(), *n)).collect::<Lanes>();
        let (a, b, none) = (lanes(&[("b", 4), ("c", 2)]), lanes(&[("a", 4)]), lanes(&[]));
        assert_eq!(nvlink(("a", &a), ("b", &b), &cards), Some(Link::NvLink(4)));
        assert_eq!(nvlink(("c", &none), ("a", &a), &cards), Some(Link::NvLink(2)));
        assert_eq!(nvlink(("b", &b), ("c", &none), &cards), None);
        let (x, y) = (lanes(&[("s0", 9), ("s1", 9)]), lanes(&[("s0", 6), ("s1", 6)]));
        assert_eq!(nvlink(("a", &x), ("b", &y), &cards), Some(Link::NvLink(12)));
    }

    #[test]
    fn only_device_files_that_exist_are_handed_out() {
        let dev = tempfile::tempdir().unwrap();
        for name in ["nvidia3", "nvidiactl", "nvidia-uvm"] {
            std::fs::write(dev.path().join(name), "").unwrap();
        }
        let roots = Roots { dev: dev.path().to_owned(), ..Roots::default() };
        assert_eq!(roots.node("nvidia3"), Some(PathBuf::from("/dev/nvidia3")));
        assert_eq!(control_nodes(&roots), [PathBuf::from("/dev/nvidiactl"), PathBuf::from("/dev/nvidia-uvm")]);
        assert_eq!(roots.node("nvidia0"), None);
    }
}
