//! What is known of a container for which kubelet is about to be advised on ids.

use std::collections::BTreeSet;

use kerf::ids::DeviceId;

/// The GPUs whose ids a container should get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreferredDevices {
    /// Those on its record, and of shares by count how many of each; empty where it has no record.
    pub cards: Vec<(DeviceId, Option<u32>)>,
    /// Those that other containers have, or will have, in another way.
    pub closed: BTreeSet<DeviceId>,
}
