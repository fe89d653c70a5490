//! What a container gets: a grant and the host's facts in, environment, device files and names out. Pure.
//!
//! Everything is in the answer of `vcuda-core`; that of `vcuda-memory` is empty, since kubelet merges the two in
//! any order. No limit is in the environment, where the container could change it, and `LD_LIBRARY_PATH` is the
//! image's own business.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kerf::annotation::Keys;
use kerf::plan::Grant;
use kerf::units::Mib;
use kerf_proto::deviceplugin::{self as proto, CdiDevice, ContainerAllocateResponse, DeviceSpec};

use crate::device::backend::Vendor;
use crate::device::cards::Cards;
use crate::isolation::demand::{Mount, Provision};

/// How cards are handed to containers on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strategy {
    /// Keys of the annotations.
    pub keys: Keys,
    /// Name cards to the container runtime as `<kind>=<uuid>` (CDI) instead of by device files.
    pub cdi_kind: Option<String>,
    /// Device files that every container with cards gets, beside those of its cards.
    pub extra_devices: Vec<PathBuf>,
}

/// What one container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerBinding {
    /// Environment.
    pub envs: BTreeMap<String, String>,
    /// Device files, the same path inside as on the host.
    pub devices: Vec<PathBuf>,
    /// CDI names.
    pub cdi: Vec<String>,
    /// Annotations for the container runtime.
    pub annotations: BTreeMap<String, String>,
    /// Files and directories of the host.
    pub mounts: Vec<Mount>,
}

/// What the container of `grant` gets. A card that is not in `cards` adds its name and no device file.
pub fn container(grant: &Grant, cards: &Cards, strategy: &Strategy) -> ContainerBinding {
    let uuids: Vec<&str> = grant.devices().map(|device| device.as_str()).collect();
    let hosts: Vec<_> = grant.devices().filter_map(|device| cards.get(device)).collect();
    let mut devices: Vec<PathBuf> = Vec::new();
    let mut cdi = Vec::new();
    match &strategy.cdi_kind {
        Some(kind) => cdi.extend(uuids.iter().map(|uuid| format!("{kind}={uuid}"))),
        None => {
            let own = hosts.iter().flat_map(|host| &host.nodes);
            let shared = hosts.iter().flat_map(|host| &host.control_nodes);
            for node in own.chain(shared) {
                if !devices.contains(node) {
                    devices.push(node.clone());
                }
            }
        }
    }
    for node in &strategy.extra_devices {
        if !devices.contains(node) {
            devices.push(node.clone());
        }
    }
    let core: u32 = grant.slices.iter().map(|slice| slice.share.compute.to_core_units()).sum();
    let memory: u64 = grant.slices.iter().map(|slice| slice.share.memory).map(Mib::bytes).sum();
    let nodes: Vec<String> =
        hosts.iter().flat_map(|host| &host.nodes).map(|node| node.display().to_string()).collect();
    let keys = &strategy.keys;
    let named = hosts.iter().any(|host| matches!(host.origin.vendor, Vendor::Nvidia | Vendor::Simulated));
    ContainerBinding {
        // only NVIDIA's runtime reads it; other vendors' programs see the cards whose files they have
        envs: (named || hosts.is_empty())
            .then(|| ("NVIDIA_VISIBLE_DEVICES".to_owned(), uuids.join(",")))
            .into_iter()
            .collect(),
        devices,
        cdi,
        annotations: BTreeMap::from([
            (keys.core.clone(), core.to_string()),
            (keys.memory.clone(), memory.to_string()),
            (format!("{}/vcuda-device", keys.domain), nodes.join(",")),
        ]),
        mounts: Vec::new(),
    }
}

impl ContainerBinding {
    /// And what holds it to its share.
    #[must_use]
    pub fn with(mut self, provision: Provision) -> Self {
        self.envs.extend(provision.envs);
        self.mounts.extend(provision.mounts);
        self
    }
}

impl From<ContainerBinding> for ContainerAllocateResponse {
    fn from(binding: ContainerBinding) -> Self {
        let path = |path: &Path| path.display().to_string();
        Self {
            envs: binding.envs.into_iter().collect(),
            mounts: binding
                .mounts
                .iter()
                .map(|mount| proto::Mount {
                    container_path: path(&mount.container),
                    host_path: path(&mount.host),
                    read_only: mount.read_only,
                })
                .collect(),
            devices: binding
                .devices
                .iter()
                .map(|node| DeviceSpec {
                    container_path: path(node),
                    host_path: path(node),
                    permissions: "rw".to_owned(),
                })
                .collect(),
            annotations: binding.annotations.into_iter().collect(),
            cdi_devices: binding.cdi.into_iter().map(|name| CdiDevice { name }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::backend::{HostDevice, Origin};
    use crate::device::facts::Facts;
    use kerf::device::Device;
    use kerf::plan::{Form, Slice};
    use kerf::request::ContainerKind;
    use kerf::units::Share;

    fn cards() -> Cards {
        let host = |index: u32| HostDevice {
            device: Device::new(format!("GPU-{index}"), index, Mib(16384)),
            pci: String::new(),
            nodes: vec![format!("/dev/nvidia{index}").into()],
            control_nodes: vec!["/dev/nvidiactl".into(), "/dev/nvidia-uvm".into()],
            origin: Origin::default(),
            facts: Facts::None,
        };
        Cards::default().discovered(vec![host(0), host(1)])
    }

    fn grant(whole: bool, slices: &[(&str, u32, u64)]) -> Grant {
        let slice = |(device, compute, memory): &(&str, u32, u64)| Slice {
            device: (*device).into(),
            index: 0,
            share: Share::new(*compute, *memory),
            count: 1,
        };
        Grant {
            container: "main".into(),
            kind: ContainerKind::App,
            position: 0,
            form: if whole { Form::Whole } else { Form::Share },
            slices: slices.iter().map(slice).collect(),
        }
    }

    fn strategy() -> Strategy {
        Strategy { keys: Keys::default(), cdi_kind: None, extra_devices: Vec::new() }
    }

    fn text(binding: &ContainerBinding) -> String {
        let map = |name: &str, map: &BTreeMap<String, String>| {
            map.iter().map(|(key, value)| format!("{name} {key}={value}\n")).collect::<String>()
        };
        let devices = binding.devices.iter().map(|node| format!("device {}\n", node.display()));
        let cdi = binding.cdi.iter().map(|name| format!("cdi {name}\n"));
        let lists: String = devices.chain(cdi).collect();
        format!("{}{lists}{}", map("env", &binding.envs), map("annotation", &binding.annotations))
    }

    #[test]
    fn a_share_gets_its_card_and_the_drivers_files() {
        let binding = container(&grant(false, &[("GPU-1", 250, 7680)]), &cards(), &strategy());
        assert_eq!(
            text(&binding),
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
        let strategy = Strategy { extra_devices: vec!["/dev/infiniband/uverbs0".into()], ..strategy() };
        let binding =
            container(&grant(true, &[("GPU-0", 1000, 16384), ("GPU-1", 1000, 16384)]), &cards(), &strategy);
        assert_eq!(
            text(&binding),
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
        let strategy = Strategy {
            keys: Keys::new("tencent.com".parse().unwrap()),
            cdi_kind: Some("nvidia.com/gpu".into()),
            ..strategy()
        };
        let binding = container(&grant(false, &[("GPU-0", 10, 256)]), &cards(), &strategy);
        assert_eq!(
            text(&binding),
            "env NVIDIA_VISIBLE_DEVICES=GPU-0\n\
             cdi nvidia.com/gpu=GPU-0\n\
             annotation tencent.com/vcuda-core=1\n\
             annotation tencent.com/vcuda-device=/dev/nvidia0\n\
             annotation tencent.com/vcuda-memory=268435456\n"
        );
        let response = ContainerAllocateResponse::from(binding);
        assert!(!response.envs.contains_key("LD_LIBRARY_PATH"));
    }
}
