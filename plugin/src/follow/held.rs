//! Which GPUs of a profile containers hold, by kubelet's list alone: for profiles whose pods are looked at by nothing else.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use kerf::ids::DeviceId;

use crate::device::cards::Cards;
use crate::kubelet::pod_resources;
use crate::offer::contract::Contract;

pub struct Held {
    /// Where kubelet serves the pod resources API.
    pub socket: PathBuf,
    /// What the GPUs are offered as.
    pub contract: Arc<Contract>,
}

impl Held {
    /// The GPUs of `cards` that kubelet's list names; `None` where kubelet does not say.
    pub async fn of(&self, cards: &Cards) -> Option<BTreeSet<DeviceId>> {
        let listed = pod_resources::list(&self.socket).await;
        let listed =
            listed.inspect_err(|error| tracing::debug!(%error, "kubelet does not say what is held")).ok()?;
        let offers = self.contract.offers(cards).resources;
        let containers = listed.pod_resources.iter().flat_map(|pod| &pod.containers);
        let mut held = BTreeSet::new();
        for devices in containers.flat_map(|container| &container.devices) {
            let Some(offered) = offers.get(&devices.resource_name) else { continue };
            let hosts = devices.device_ids.iter().filter_map(|id| offered.pool.get(id)?.host());
            held.extend(hosts.map(|host| host.device.id.clone()));
        }
        Some(held)
    }
}
