//! What a node offers to kubelet besides `vcuda`: the contracts of other vendors' plugins, each a value.
//!
//! Contracts differ only in their data. An id names its GPU, so Allocate needs no pod, no annotation and no API
//! server. Contracts of one process share only kubelet's directory; each has its own backend, and one that fails
//! does not affect the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kerf::ids::ResourceName;

use crate::device::backend::{BackendFactory, HostDevice, Part};
use crate::device::cards::Cards;
use crate::device::ids::{IdStyle, Resource};
use crate::device::scan::{Remark, ScanIssue};
use crate::offer::hand_over::{Files, HandOver, Item};
use crate::offer::order::Order;
use crate::offer::units::Units;
use crate::offer::{NamedBy, Offer, Offers};

/// The contract of one vendor's device plugin.
#[derive(Clone, Debug)]
pub struct Contract {
    /// The name in flags, logs and metrics.
    pub name: &'static str,
    pub backend: BackendFactory,
    pub naming: Naming,
    pub placed: bool,
    /// Spelled as the original plugin spells them.
    pub ids: IdStyle,
    /// Per GPU.
    pub replicas: u32,
    pub filter: Filter,
    /// Which ids kubelet is advised to take.
    pub order: Order,
    /// What a container gets. Where it is shown all GPUs, it also gets the files of their monitoring engines.
    pub hand_over: HandOver,
    /// Whether a container may have at most one share.
    pub one_share: bool,
    /// A resource that shows all GPUs to monitoring programs.
    pub monitoring: Option<Monitoring>,
    /// Whether kubelet is told NUMA nodes.
    pub numa: bool,
    /// Time between two checks of the GPUs.
    pub period: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// All devices as one resource. Devices of several layouts on one node are refused.
    Single(String),
    /// By how the GPU is partitioned: `<domain>/<layout>`, and `<domain>/<plain>` without partitions.
    Layout {
        /// `amd.com`
        domain: String,
        /// `gpu`
        plain: String,
    },
    /// By the kernel's driver: `<domain>/<driver>`.
    Driver {
        /// `gpu.intel.com`
        domain: String,
        /// The drivers that are known.
        drivers: &'static [&'static str],
    },
    /// Whole GPUs as one resource, instances (MIG) as `<prefix><profile>`.
    Instance {
        /// `nvidia.com/gpu`
        whole: String,
        /// `nvidia.com/mig-`
        prefix: String,
    },
}

/// The longest name of a resource after its domain.
const MAX_NAME: usize = 63;

impl Naming {
    /// The resource names that are possible, as [`kerf::shares::ShareResources`] reads them.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Single(name) => vec![name.clone()],
            // each compute partition mode of a GPU with each of its memory modes
            Self::Layout { domain, plain } => {
                let modes = ["spx", "dpx", "tpx", "qpx", "cpx"].map(|mode| format!("{domain}/{mode}_*"));
                modes.into_iter().chain([format!("{domain}/{plain}")]).collect()
            }
            Self::Driver { domain, drivers } => drivers.iter().map(|driver| format!("{domain}/{driver}")).collect(),
            Self::Instance { whole, prefix } => vec![whole.clone(), format!("{prefix}*")],
        }
    }

    /// The name of a device's resource, or why it has none.
    fn name(&self, host: &HostDevice) -> Result<String, ScanIssue> {
        let origin = &host.origin;
        let name = match self {
            Self::Single(name) => name.clone(),
            Self::Layout { domain, plain } if origin.layout.is_empty() => format!("{domain}/{plain}"),
            Self::Layout { domain, .. } => format!("{domain}/{}", origin.layout),
            Self::Driver { domain, .. } => format!("{domain}/{}", origin.driver),
            Self::Instance { whole, prefix } => match &origin.part {
                Part::Instance { profile, .. } if profile.is_empty() => return Err(ScanIssue::NoProfile),
                Part::Instance { profile, .. } => format!("{prefix}{}", profile.replace('+', ".")),
                _ => whole.clone(),
            },
        };
        let own = name.rsplit('/').next().unwrap_or_default();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if own.is_empty() || own.len() > MAX_NAME || !own.chars().all(legal) {
            return Err(ScanIssue::NoResourceName(name));
        }
        Ok(name)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these, by PCI device id (`0x56c0`); empty: all.
    pub allow: Vec<String>,
    /// By PCI device id, as in `allow`.
    pub deny: Vec<String>,
    /// Whether instances (MIG) are left out.
    pub whole_only: bool,
}

impl Filter {
    /// Why a device is not served; `None` where it is.
    pub fn refusal(&self, host: &HostDevice) -> Option<ScanIssue> {
        let id = &*host.origin.model_id;
        let named = |list: &[String]| list.iter().any(|known| known == id);
        if self.whole_only && matches!(host.origin.part, Part::Instance { .. }) {
            return Some(ScanIssue::InstancesNotServed);
        }
        let refused = (!self.allow.is_empty() && !named(&self.allow)) || named(&self.deny);
        refused.then(|| ScanIssue::IdNotServed(id.to_owned()))
    }
}

/// The names of the resources that show all GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Monitoring {
    /// One for all GPUs.
    Single(String),
    /// One for each driver: `<domain>/<driver>_monitoring`.
    Split(String),
}

impl Monitoring {
    fn name(&self, host: &HostDevice) -> String {
        match self {
            Self::Single(name) => name.clone(),
            Self::Split(domain) => format!("{domain}/{}_monitoring", host.origin.driver),
        }
    }
}

type Hosts = BTreeMap<String, Vec<Arc<HostDevice>>>;

impl Contract {
    /// For tests: one share of each GPU, whose files a container gets.
    #[cfg(test)]
    pub(crate) fn plain(name: &'static str, naming: Naming) -> Self {
        Self {
            name,
            backend: crate::device::backend::none(),
            naming,
            placed: true,
            ids: IdStyle::COLONS,
            replicas: 1,
            filter: Filter::default(),
            order: Order::Sorted,
            hand_over: HandOver::new([Item::Files(Files::Gpus, "rw")]),
            one_share: false,
            monitoring: None,
            numa: false,
            period: Duration::from_secs(1),
        }
    }

    /// The resources that it offers of these GPUs.
    pub fn offers(&self, cards: &Cards) -> Offers {
        let mut refusals = BTreeSet::new();
        let mut served: Vec<Arc<HostDevice>> = Vec::new();
        for host in cards.hosts() {
            match self.filter.refusal(host) {
                Some(why) => drop(refusals.insert(Remark::left_out(host, why))),
                None => served.push(Arc::new(host.clone())),
            }
        }
        let (mut shares, mut shown) = (Hosts::new(), Hosts::new());
        // what is not there now, or left of an old layout until its container ends, does not say how the GPUs are divided
        let current = served.iter().filter(|host| !cards.is_lost(&host.device.id));
        let layouts: BTreeSet<&str> = current.map(|host| &*host.origin.layout).collect();
        if matches!(self.naming, Naming::Single(_)) && layouts.len() > 1 {
            let layouts = layouts.into_iter().collect::<Vec<_>>().join(", ");
            let why = |host: &Arc<HostDevice>| Remark::left_out(host, ScanIssue::SeveralLayouts(layouts.clone()));
            refusals.extend(served.iter().map(why));
        } else {
            for host in &served {
                match self.naming.name(host) {
                    Ok(resource) => shares.entry(resource).or_default().push(Arc::clone(host)),
                    Err(why) => drop(refusals.insert(Remark::left_out(host, why))),
                }
            }
        }
        if let Some(monitoring) = &self.monitoring {
            for host in &served {
                shown.entry(monitoring.name(host)).or_default().push(Arc::clone(host));
            }
        }
        let shares = shares.into_iter().map(|(resource, hosts)| self.shares(resource).on(hosts));
        let shown = shown.into_iter().map(|(resource, hosts)| self.all(resource).on(hosts));
        let resources = shares.chain(shown).map(|offered| (offered.offer.resource.clone(), Arc::new(offered)));
        Offers { resources: resources.collect(), refusals }
    }

    fn shares(&self, resource: String) -> Offer {
        let counted = || Resource::Counted(ResourceName::from(resource.as_str()));
        Offer {
            label: resource.clone(),
            socket: socket(self.name, &resource),
            ids: self.ids,
            units: Units::Shares(self.replicas),
            order: self.order,
            hand_over: self.hand_over.clone(),
            named_by: if self.placed { NamedBy::IdsAsPlaced(counted()) } else { NamedBy::Ids },
            one_share: self.one_share,
            numa: self.numa,
            limits: false,
            pre_start: false,
            resource,
        }
    }

    /// The offer that only shows GPUs takes no place on any of them.
    fn all(&self, resource: String) -> Offer {
        let mut hand_over = self.hand_over.clone();
        hand_over.items.push(Item::Files(Files::Monitoring, "rw"));
        Offer { units: Units::All, hand_over, named_by: NamedBy::Ids, numa: false, ..self.shares(resource) }
    }
}

/// Keeps the sockets of all resources apart.
fn socket(contract: &str, resource: &str) -> String {
    let hash =
        resource.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{}-{hash:08x}", contract.get(..6).unwrap_or(contract))
}
