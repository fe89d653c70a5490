//! What a node offers to kubelet beside `vcuda`: the contracts of other vendors' plugins, each a value.
//!
//! ```text
//!   [flags] -> Profile (data: names, ids, shares, order, gift)
//!   backend -> cards ----> [pool]: resource -> ids, each on its card
//!                             |-- ListAndWatch, GetPreferredAllocation ([order], never fails)
//!                             +-- Allocate -> [gift]: device files, mounts, environment, names
//! ```
//!
//! A profile differs from another only in its data. An id names its card, so Allocate needs to know nothing else: no
//! pod, no annotation, no API server. Profiles of one process share nothing but kubelet's directory; each has its own
//! backend, and one that fails leaves the others alone.

use std::time::Duration;

use crate::config::BackendChoice;
use crate::device::backend::{HostDevice, Part};
use crate::device::roots::Roots;

pub use crate::offer::hand_over::Gift;
pub use crate::offer::order::Order;

/// One system's contract.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The word used in flags, logs and metrics.
    pub name: &'static str,
    /// Where its cards come from.
    pub source: BackendChoice,
    /// Which resource a device is offered as.
    pub naming: Naming,
    /// Whether the extender chooses the cards of its pods.
    pub placed: bool,
    /// How ids look.
    pub ids: IdStyle,
    /// Shares of each device.
    pub replicas: u32,
    /// Cards to leave alone, by PCI device id.
    pub filter: Filter,
    /// Which ids kubelet is advised to take.
    pub order: Order,
    /// What a container gets.
    pub gift: Gift,
    /// Whether a container may have one share and no more.
    pub one_share: bool,
    /// A resource that shows all cards to whoever watches them.
    pub monitoring: Option<Monitoring>,
    /// Whether kubelet is told NUMA nodes.
    pub numa: bool,
    /// Between looks at the cards.
    pub period: Duration,
    /// Where the host's files are seen.
    pub roots: Roots,
}

/// Which resource a device is offered as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// All devices as one. Devices of several layouts on one node are refused.
    Single(String),
    /// By how the card is partitioned: `<domain>/<layout>`, and `<domain>/<plain>` without a layout.
    Layout {
        /// `amd.com`
        domain: String,
        /// `gpu`
        plain: String,
    },
    /// By the kernel's driver: `<domain>/<driver>`.
    Driver(String),
    /// Whole cards as one resource, instances (MIG) as `<prefix><profile>`.
    Instance {
        /// `nvidia.com/gpu`
        whole: String,
        /// `nvidia.com/mig-`
        prefix: String,
    },
}

impl Naming {
    /// The names that it may give, as [`kerf::shares::ShareResources`] reads them.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Single(name) => vec![name.clone()],
            // the ways to partition the compute units of a card, each with those of its memory
            Self::Layout { domain, plain } => {
                let modes = ["spx", "dpx", "tpx", "qpx", "cpx"].map(|mode| format!("{domain}/{mode}_*"));
                modes.into_iter().chain([format!("{domain}/{plain}")]).collect()
            }
            Self::Driver(domain) => ["i915", "xe"].map(|driver| format!("{domain}/{driver}")).into(),
            Self::Instance { whole, prefix } => vec![whole.clone(), format!("{prefix}*")],
        }
    }
}

/// How ids look: `<base>`, or `<base><separator><share>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdStyle {
    /// What names the device.
    pub base: Base,
    /// Between that and the share's number.
    pub separator: &'static str,
    /// Number of a device's first share.
    pub first: u32,
    /// Whether an unshared device has a number, too.
    pub always: bool,
}

/// What names a device in its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The device's id: UUID or PCI address.
    Id,
    /// The kernel's name of it.
    Name,
}

impl IdStyle {
    /// `<id>`, and of shares `<id>::<k>`: the form that DCGM's exporter understands.
    pub const COLONS: Self = Self { base: Base::Id, separator: "::", first: 0, always: false };

    /// The id of share `share`, counted from zero, of a device shared by `of`.
    pub fn id(&self, id: &str, name: &str, share: u32, of: u32) -> String {
        let base = match self.base {
            Base::Id => id,
            Base::Name => name,
        };
        if of == 1 && !self.always {
            return base.to_owned();
        }
        format!("{base}{}{}", self.separator, share + self.first)
    }
}

/// Which cards are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Only these, by PCI device id (`0x56c0`); empty: all.
    pub allow: Vec<String>,
    /// All but these.
    pub deny: Vec<String>,
    /// Whether instances (MIG) are served.
    pub instances: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new(), instances: true }
    }
}

impl Filter {
    /// Why a device is not served, if it is not.
    pub fn refusal(&self, host: &HostDevice) -> Option<String> {
        let id = &*host.origin.model_id;
        let named = |list: &[String]| list.iter().any(|known| known == id);
        if !self.instances && matches!(host.origin.part, Part::Instance { .. }) {
            return Some(format!("{}: instances (MIG) are not to be served", host.subject()));
        }
        let refused = (!self.allow.is_empty() && !named(&self.allow)) || named(&self.deny);
        refused.then(|| format!("{}: PCI id {id} is not to be served", host.subject()))
    }
}

/// How the resources that show all cards are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Monitoring {
    /// One for all cards.
    Single(String),
    /// One for each driver: `<domain>/<driver>_monitoring`.
    Split(String),
}
