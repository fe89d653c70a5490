//! What is known of a container that is about to be offered ids, for whoever chooses them.

use std::collections::BTreeSet;

use kerf::ids::DeviceId;

/// Which GPUs the counted shares of a container should be on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreferredDevices {
    /// Those on its record and how many shares of each; empty where it has no record.
    pub cards: Vec<(DeviceId, u32)>,
    /// Those that others have, or will have, in another way.
    pub closed: BTreeSet<DeviceId>,
}
