//! One extended resource that this node offers, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::device::backend::HostDevice;
use crate::device::cards::Cards;
use crate::device::ids::{IdStyle, Resource};
use crate::offer::hand_over::HandOver;
use crate::offer::order::Order;
use crate::offer::units::{Pool, Units};

/// One extended resource. What differs between two of them is here, and nowhere else.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The full name: `inspur.com/vcuda-core`, `amd.com/gpu`.
    pub resource: String,
    /// The word used in metrics and logs.
    pub label: String,
    /// Tells its sockets from those of other offers: at most 15 letters, since paths of sockets are short.
    pub socket: String,
    /// How its ids are spelled.
    pub ids: IdStyle,
    /// What its ids count.
    pub units: Units,
    /// Which ids kubelet is advised to take.
    pub order: Order,
    /// What a container gets.
    pub hand_over: HandOver,
    /// What says which GPUs a container has.
    pub named_by: NamedBy,
    /// Whether a container may have one id and no more.
    pub one_share: bool,
    /// Whether kubelet is told the NUMA nodes of ids. It aligns them then, so an id has to name the container's GPU.
    pub numa: bool,
    /// Whether its containers are held to their shares.
    pub limits: bool,
    /// Whether kubelet says when a container starts (`pre_start_required`).
    pub pre_start: bool,
}

/// What says which GPUs a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The ids that kubelet chose.
    Ids,
    /// These ids, too; kubelet is steered to the GPUs on the placement record, and the record follows what it chose.
    IdsAsPlaced(Resource),
    /// The placement record. kubelet's ids are an amount, and tell whose call it is.
    Record(Resource),
}

impl NamedBy {
    /// What kubelet's ids are on placement records, where the extender places the pods.
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

    /// Whether kubelet is told its list anew to have it write its checkpoint. Of the two offers of `vcuda` one suffices for
    /// all of kubelet's books: the one with fewer ids.
    pub fn repeats(&self) -> bool {
        matches!(self.named_by, NamedBy::IdsAsPlaced(_) | NamedBy::Record(Resource::Core))
    }
}

/// An offer on the GPUs that are here.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// The same whatever GPUs there are.
    pub offer: Offer,
    /// Its ids on them.
    pub pool: Pool,
}

/// What a source of GPUs is offered as.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offers {
    /// By full name.
    pub resources: BTreeMap<String, Arc<Offered>>,
    /// Why GPUs of the node are not offered.
    pub refusals: BTreeSet<String>,
}

impl Offers {
    /// One offer of every GPU; it is there without a GPU as well.
    pub fn of_all(offer: &Offer, cards: &Cards) -> Self {
        let offered = offer.clone().on(cards.hosts().cloned().map(Arc::new).collect());
        let resources = BTreeMap::from([(offer.resource.clone(), Arc::new(offered))]);
        Self { resources, refusals: BTreeSet::new() }
    }
}
