//! kerf's own two resources, whose GPUs the placement record names.
//!
//! Everything is in the answer for `vcuda-core`; that for `vcuda-memory` is empty, since kubelet merges the two in
//! any order. kubelet is not told the GPUs' NUMA nodes: it would align ids by them, and an id names the GPU that
//! its container was meant to have, not the one on the pod's record. So pods could be rejected for ever for lack of
//! ids of the right NUMA node.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kerf::annotation::Keys;

use crate::device::backend::Vendor;
use crate::device::ids::{IdStyle, Resource};
use crate::offer::hand_over::{Cdi, Files, HandOver, Item};
use crate::offer::order::Order;
use crate::offer::units::Units;
use crate::offer::{NamedBy, Offer};

/// `vcuda-core` and `vcuda-memory`. A container gets `extra_devices` besides those of its GPUs, which `cdi_kind` has
/// named as `<kind>=<uuid>` (CDI) instead of by device files. `visible_by_env`: vendors whose container runtime reads
/// `NVIDIA_VISIBLE_DEVICES`.
pub fn offers(
    keys: &Keys,
    cdi_kind: Option<String>,
    extra_devices: Vec<PathBuf>,
    visible_by_env: BTreeSet<Vendor>,
) -> [Offer; 2] {
    let mut items = match cdi_kind {
        Some(kind) => vec![Item::Cdi(Cdi { kind, directory: None, annotation: None })],
        None => vec![Item::Files(Files::Gpus, "rw"), Item::Files(Files::Driver, "rw")],
    };
    items.push(Item::Files(Files::Paths(extra_devices), "rw"));
    items.extend([Item::VisibleDevices(visible_by_env), Item::Amounts(Box::new(keys.clone()))]);
    let offer = |resource: Resource, units, hand_over| Offer {
        resource: resource.name(keys).to_owned(),
        label: resource.as_str().to_owned(),
        socket: resource.as_str().to_owned(),
        ids: IdStyle::COLONS,
        units,
        order: Order::Tightest,
        hand_over,
        limits: resource == Resource::Core,
        named_by: NamedBy::Record(resource),
        one_share: false,
        numa: false,
        pre_start: true,
    };
    [
        offer(Resource::Core, Units::Percents, HandOver::new(items)),
        offer(Resource::Memory, Units::Memory, HandOver::default()),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::device::backend::{HostDevice, Origin};
    use crate::device::cards::Cards;
    use crate::offer::hand_over::{ContainerEdits, Given};
    use kerf::device::Device;
    use kerf::plan::{ContainerGrant, DeviceRef, Grant};
    use kerf::request::{Ask, ContainerKind};
    use kerf::units::{Mib, Share};

    fn cards() -> Cards {
        let host = |index: u32| HostDevice {
            nodes: vec![format!("/dev/nvidia{index}").into()],
            control_nodes: vec!["/dev/nvidiactl".into(), "/dev/nvidia-uvm".into()],
            ..HostDevice::new(Device::new(format!("GPU-{index}"), index, Mib(16384)), Origin::default())
        };
        Cards::default().discovered(vec![host(0), host(1)])
    }

    /// The offers where nothing but this is configured.
    fn offers(cdi_kind: Option<&str>, extra_devices: &[&str], keys: &Keys) -> [Offer; 2] {
        let extra_devices = extra_devices.iter().map(PathBuf::from).collect();
        super::offers(keys, cdi_kind.map(str::to_owned), extra_devices, [Vendor::Simulated].into())
    }

    /// What the container with this grant gets.
    fn edits(offers: &[Offer; 2], grant: &ContainerGrant) -> ContainerEdits {
        assert_eq!(offers[1].hand_over.edits(&Given::by_record(grant, &cards())), ContainerEdits::default());
        offers[0].hand_over.edits(&Given::by_record(grant, &cards()))
    }

    fn grant(ask: &Ask, devices: &[(&str, u64)]) -> ContainerGrant {
        let device = |(id, memory): &(&str, u64)| (DeviceRef { id: (*id).into(), index: 0 }, Mib(*memory));
        let gpus = Grant::of(ask, devices.iter().map(device)).unwrap();
        ContainerGrant { container: "main".into(), kind: ContainerKind::App, position: 0, gpus }
    }

    fn text(edits: &ContainerEdits) -> String {
        let map = |name: &str, map: &BTreeMap<String, String>| {
            map.iter().map(|(key, value)| format!("{name} {key}={value}\n")).collect::<String>()
        };
        let devices = edits.devices.iter().map(|file| format!("device {}\n", file.path.display()));
        let cdi = edits.cdi_devices.iter().map(|name| format!("cdi {name}\n"));
        let lists: String = devices.chain(cdi).collect();
        format!("{}{lists}{}", map("env", &edits.envs), map("annotation", &edits.annotations))
    }

    #[test]
    fn a_share_gets_its_card_and_the_drivers_files() {
        let offers = offers(None, &[], &Keys::default());
        let edits = edits(&offers, &grant(&Ask::Share(Share::new(250, 7680)), &[("GPU-1", 16384)]));
        assert_eq!(
            text(&edits),
            "env NVIDIA_VISIBLE_DEVICES=GPU-1\n\
             device /dev/nvidia1\n\
             device /dev/nvidiactl\n\
             device /dev/nvidia-uvm\n\
             annotation inspur.com/vcuda-core=25\n\
             annotation inspur.com/vcuda-device=/dev/nvidia1\n\
             annotation inspur.com/vcuda-memory=8053063680\n"
        );
    }

    #[test]
    fn whole_cards_come_once_each_with_extra_files() {
        let offers = offers(None, &["/dev/infiniband/uverbs0"], &Keys::default());
        let edits =
            edits(&offers, &grant(&Ask::Whole { count: 2, memory: None }, &[("GPU-0", 16384), ("GPU-1", 16384)]));
        assert_eq!(
            text(&edits),
            "env NVIDIA_VISIBLE_DEVICES=GPU-0,GPU-1\n\
             device /dev/nvidia0\n\
             device /dev/nvidia1\n\
             device /dev/nvidiactl\n\
             device /dev/nvidia-uvm\n\
             device /dev/infiniband/uverbs0\n\
             annotation inspur.com/vcuda-core=200\n\
             annotation inspur.com/vcuda-device=/dev/nvidia0,/dev/nvidia1\n\
             annotation inspur.com/vcuda-memory=34359738368\n"
        );
    }

    #[test]
    fn cdi_names_stand_in_for_device_files() {
        let keys = Keys::new("tencent.com".parse().unwrap());
        let offers = offers(Some("nvidia.com/gpu"), &[], &keys);
        let edits = edits(&offers, &grant(&Ask::Share(Share::new(10, 256)), &[("GPU-0", 16384)]));
        assert_eq!(
            text(&edits),
            "env NVIDIA_VISIBLE_DEVICES=GPU-0\n\
             cdi nvidia.com/gpu=GPU-0\n\
             annotation tencent.com/vcuda-core=1\n\
             annotation tencent.com/vcuda-device=/dev/nvidia0\n\
             annotation tencent.com/vcuda-memory=268435456\n"
        );
        assert!(!edits.envs.contains_key("LD_LIBRARY_PATH"));
    }
}
