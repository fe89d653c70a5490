//! Node labels as the vendors' labellers write them, so that pods and tools that select by them find kerf's nodes
//! too.
//!
//! ```text
//!   GPUs ----> vendor/<v>/labels (pure: devices in, labels out) ---> [write] --> [feature_file], for NFD
//!                                                                    +-------> [node], the Node's own labels
//! ```
//!
//! A fact that the driver does not tell has no label. A GPU that became unhealthy or was lost stays labelled until
//! the plugin restarts: labels tell what a node has, the [condition](crate::publish::condition) its health.
//!
//! Two labels are *gates*: DaemonSets, kerf's own among them, run where they are. A gate is written and never
//! removed, since removing it would end the program that writes it.

use std::collections::BTreeMap;

use crate::device::backend::{HostDevice, Vendor};
use crate::device::label::{Labeller, Labels};
use crate::vendor;

/// gpu-manager's label for the nodes it runs on; `manifests/base` selects them by it.
const VCUDA_GATE: (&str, &str) = ("nvidia-device-enable", "enable");

/// Which labels are written.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// One for each vendor that has labels.
    pub labellers: BTreeMap<Vendor, Labeller>,
    /// Whether `vcuda` is offered.
    pub vcuda: bool,
}

/// The labels that the Node should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// By vendor. Labels of a vendor that is not a key are left as they are.
    pub vendors: BTreeMap<Vendor, Labels>,
    /// Labels that are added where they are missing, and never removed.
    pub gates: Labels,
}

impl Wanted {
    /// The labels of these devices, for vendors with a device here.
    pub fn of(hosts: &[&HostDevice], style: &Style) -> Self {
        let mut wanted = Self::default();
        let mut by_vendor: BTreeMap<Vendor, Vec<&HostDevice>> = BTreeMap::new();
        for host in hosts {
            by_vendor.entry(host.origin.vendor).or_default().push(host);
        }
        for (vendor, own) in by_vendor {
            if let Some((key, value)) = vendor::support(vendor).labels.as_ref().and_then(|labels| labels.gate) {
                wanted.gates.set(key, value);
            }
            if let Some(labeller) = style.labellers.get(&vendor) {
                wanted.vendors.insert(vendor, labeller.labels(&own));
            }
        }
        if style.vcuda && !hosts.is_empty() {
            wanted.gates.set(VCUDA_GATE.0, VCUDA_GATE.1);
        }
        wanted
    }
}
