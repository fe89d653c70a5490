//! One extended resource that this node offers, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::device::backend::HostDevice;
use crate::device::cards::Cards;
use crate::device::ids::{IdStyle, Resource};
use crate::device::scan::Remark;
use crate::offer::hand_over::HandOver;
use crate::offer::order::Order;
use crate::offer::units::{Pool, Units};

/// All that differs between two extended resources is here.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The full name: `inspur.com/vcuda-core`, `amd.com/gpu`.
    pub resource: String,
    /// The name in metrics and logs.
    pub label: String,
    /// Part of its sockets' names, different for each offer: at most 15 letters, since paths of sockets are short.
    pub socket: String,
    pub ids: IdStyle,
    /// What its ids count.
    pub units: Units,
    /// Which ids kubelet is advised to take.
    pub order: Order,
    /// What a container gets.
    pub hand_over: HandOver,
    pub named_by: NamedBy,
    /// Whether a container may have at most one id.
    pub one_share: bool,
    /// Whether kubelet is told the NUMA nodes of ids. It then aligns them, so an id has to name the container's
    /// GPU.
    pub numa: bool,
    /// Whether its containers are held to their shares.
    pub limits: bool,
    /// Whether kubelet calls before a container starts (`pre_start_required`).
    pub pre_start: bool,
}

/// What decides which GPUs a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The ids that kubelet chose.
    Ids,
    /// Also the ids that kubelet chose; but kubelet is steered to the GPUs on the placement record, and the record
    /// follows its choice.
    IdsAsPlaced(Resource),
    /// The placement record. kubelet's ids are only an amount, by which a call is matched to a container.
    Record(Resource),
}

impl NamedBy {
    /// The resource on placement records, where the extender places the pods.
    pub fn placed(&self) -> Option<&Resource> {
        match self {
            Self::Ids => None,
            Self::IdsAsPlaced(resource) | Self::Record(resource) => Some(resource),
        }
    }
}

impl Offer {
    /// The ids on these GPUs.
    pub fn on(self, hosts: Vec<Arc<HostDevice>>) -> Offered {
        let pool = Pool::new(self.ids, self.units, hosts);
        Offered { offer: self, pool }
    }

    /// Whether it only shows GPUs, all of them, and gives no share of any.
    pub fn shows_all(&self) -> bool {
        self.units == Units::All
    }

    /// Whether kubelet is sent this list again to make it write its checkpoint. Of the two offers of `vcuda` one
    /// suffices, since the checkpoint holds all resources: the one with fewer ids.
    pub fn repeats(&self) -> bool {
        matches!(self.named_by, NamedBy::IdsAsPlaced(_) | NamedBy::Record(Resource::Core))
    }
}

/// An offer on the GPUs that are here.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// Does not depend on the GPUs.
    pub offer: Offer,
    /// Its ids on them.
    pub pool: Pool,
}

/// What a source of GPUs is offered as.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offers {
    /// By full name.
    pub resources: BTreeMap<String, Arc<Offered>>,
    /// GPUs of the node that are not offered.
    pub refusals: BTreeSet<Remark>,
}

impl Offers {
    /// One offer of every GPU; it exists without a GPU too.
    pub fn of_all(offer: &Offer, cards: &Cards) -> Self {
        let offered = offer.clone().on(cards.hosts().cloned().map(Arc::new).collect());
        let resources = BTreeMap::from([(offer.resource.clone(), Arc::new(offered))]);
        Self { resources, refusals: BTreeSet::new() }
    }
}
