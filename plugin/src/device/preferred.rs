//! What is known of a container that is about to be offered ids, for whoever chooses them.

use std::collections::BTreeSet;

use kerf::ids::DeviceId;

/// Which GPUs the ids of a container should be of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreferredDevices {
    /// Those on its record, and of shares by count how many of each; empty where it has no record.
    pub cards: Vec<(DeviceId, Option<u32>)>,
    /// Those that others have, or will have, in another way.
    pub closed: BTreeSet<DeviceId>,
}
