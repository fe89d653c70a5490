//! Offers and container edits as kubelet's gRPC messages.

use std::path::Path;

use kerf_proto::deviceplugin::{
    CdiDevice, ContainerAllocateResponse, Device, DeviceSpec, HEALTHY, Mount, NumaNode, TopologyInfo, UNHEALTHY,
};

use crate::offer::Offered;
use crate::offer::hand_over::ContainerEdits;

/// What ListAndWatch sends for an offer.
pub fn devices(Offered { offer, pool }: &Offered) -> Vec<Device> {
    let units = pool.units().map(|(id, unit)| {
        let node = unit.host().filter(|_| offer.numa).and_then(|host| host.device.numa);
        Device {
            id,
            health: if unit.usable() { HEALTHY } else { UNHEALTHY }.to_owned(),
            topology: node.map(|node| TopologyInfo { nodes: vec![NumaNode { id: node.into() }] }),
        }
    });
    units.collect()
}

/// What Allocate answers for one container.
pub fn answer(edits: ContainerEdits) -> ContainerAllocateResponse {
    let text = |path: &Path| path.display().to_string();
    let mounts = edits.mounts.iter().map(|mount| Mount {
        container_path: text(&mount.container),
        host_path: text(&mount.host),
        read_only: mount.read_only,
    });
    let devices = edits.devices.iter().map(|file| DeviceSpec {
        container_path: text(&file.path),
        host_path: text(&file.path),
        permissions: file.permissions.to_owned(),
    });
    ContainerAllocateResponse {
        mounts: mounts.collect(),
        devices: devices.collect(),
        envs: edits.envs.into_iter().collect(),
        annotations: edits.annotations.into_iter().collect(),
        cdi_devices: edits.cdi_devices.into_iter().map(|name| CdiDevice { name }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kerf::annotation::Keys;
    use kerf::device;
    use kerf::units::Mib;

    use super::*;
    use crate::device::backend::{HostDevice, Origin};
    use crate::offer::vcuda::offers;

    /// A contract that tells NUMA nodes does so here, too: that `vcuda` does not is its offers' choice.
    #[test]
    fn kubelet_is_not_told_where_a_card_is() {
        let mut gpu = device::Device::new("GPU-0", 0, Mib(256));
        gpu.numa = Some(1);
        let host = Arc::new(HostDevice::new(gpu, Origin::default()));
        for offer in offers(&Keys::default(), None, Vec::new(), [].into()) {
            let numa = |numa| {
                let mut offer = offer.clone();
                offer.numa |= numa;
                devices(&offer.on(vec![Arc::clone(&host)]))
            };
            let untold = numa(false);
            assert!(!untold.is_empty() && untold.iter().all(|device| device.topology.is_none()));
            assert!(numa(true).iter().all(|device| device.topology.as_ref().is_some_and(|at| at.nodes[0].id == 1)));
        }
    }
}
