//! Keeps a profile and the records of its pods together: kubelet is steered to ids of the recorded cards, and what it
//! took is noted, so that a record that kubelet did not follow is corrected.
//!
//! An id names its card, so what a container gets never depends on a record; nothing here can fail a call.

use std::collections::BTreeMap;

use kerf_proto::deviceplugin::ContainerPreferredAllocationRequest;

use crate::allocation::{Allocations, Decision};
use crate::device::ids::Resource;
use crate::device::preferred::PreferredDevices;
use crate::offer::order::{self, Order};
use crate::offer::pool::Pool;
use crate::reconcile::Reconciler;
use crate::roster::Roster;
use crate::state::State;

/// The records of the pods of placed profiles.
#[derive(Clone)]
pub struct Steering {
    /// Where they are kept.
    pub state: State,
    /// Asks kubelet and the API server about them.
    pub reconciler: Reconciler,
}

impl Steering {
    /// Chooses ids for one container.
    pub async fn prefer(
        &self,
        resource: &Resource,
        order: Order,
        pool: &Pool,
        request: &ContainerPreferredAllocationRequest,
    ) -> Vec<String> {
        let size = usize::try_from(request.allocation_size).unwrap_or_default();
        self.reconciler.learn(resource, std::iter::once(size as u64)).await;
        let wish = self.state.allocations(|allocations| allocations.preferred_devices(resource, size as u64));
        let (available, must) = (&request.available_device_i_ds, &request.must_include_device_i_ds);
        let places = Places { roster: &self.state.roster(), resource: resource.as_str() };
        let chosen = choose(&wish, &places, order, pool, available, must, size);
        let ids = self.state.roster().spell(resource.as_str(), &chosen);
        self.state.allocations(|allocations| allocations.offers(resource, &ids));
        chosen
    }

    /// Notes that kubelet took these ids, during its call.
    pub async fn took(&self, resource: &Resource, ids: &[String]) {
        let ids = self.state.roster().spell(resource.as_str(), ids);
        let known = |allocations: &mut Allocations| {
            allocations.expects(resource, &ids) && allocations.certain(resource, ids.len())
        };
        if !self.state.allocations(known) {
            self.reconciler.learn(resource, std::iter::once(ids.len())).await;
        }
        let units = ids.len();
        if let Some((key, decision)) = self.state.allocations(|allocations| allocations.take_counted(resource, ids))
        {
            self.state.decided(resource, units, Ok((&key, &decision)));
            let Decision { evidence, candidates, .. } = &decision;
            let resource = resource.as_str();
            tracing::debug!(resource, uid = %key.pod, container = %key.container, %evidence, candidates, "shares by count taken");
        }
        self.state.doubt();
    }
}

/// Where ids are.
struct Places<'a> {
    roster: &'a Roster,
    resource: &'a str,
}

impl Places<'_> {
    fn card(&self, id: &str) -> Option<&str> {
        self.roster.card(self.resource, id)
    }
}

/// Ids of the wished cards, as many of each as is wished; the rest in the profile's order, on closed cards last.
fn choose(
    wish: &PreferredDevices,
    places: &Places<'_>,
    order: Order,
    pool: &Pool,
    available: &[String],
    must: &[String],
    size: usize,
) -> Vec<String> {
    let mut left: BTreeMap<&str, u32> = wish.cards.iter().map(|(card, count)| (card.as_str(), *count)).collect();
    // of the wished cards: whether the id is one that is still missing there
    let mut counts = |id: &String| {
        let left = places.card(id).and_then(|card| left.get_mut(card)).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    };
    let mut chosen: Vec<String> = must.to_vec();
    for id in &chosen {
        counts(id);
    }
    let mut rest: Vec<&String> = available.iter().filter(|id| !must.contains(id)).collect();
    rest.sort_unstable_by_key(|id| (pool.get(*id).map(|unit| unit.share), *id));
    rest.dedup();
    chosen.extend(rest.into_iter().filter(|id| counts(id)).cloned());
    chosen.truncate(size);
    let open = |id: &&String| {
        chosen.contains(id)
            || places.card(id).is_none_or(|card| !wish.closed.iter().any(|closed| closed.as_str() == card))
    };
    let open: Vec<String> = available.iter().filter(open).cloned().collect();
    let chosen = order::choose(order, pool, &open, &chosen, size);
    if chosen.len() < size { order::choose(order, pool, available, &chosen, size) } else { chosen }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use clap::Parser;
    use kerf::device::Device;
    use kerf::ids::DeviceId;
    use kerf::units::Mib;
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Args, Config};
    use crate::device::backend::{HostDevice, Origin, Vendor};
    use crate::device::cards::Cards;
    use crate::offer::pool;
    use crate::roster::Source;

    const NAME: &str = "deepomatic.com/shared-gpu";
    const CARDS: u32 = 3;
    const SHARES: u32 = 4;

    /// What a node with three cards of four shares makes of it.
    struct Node {
        roster: Roster,
        pool: Pool,
        order: Order,
    }

    impl Node {
        fn new(order: Order) -> Self {
            let flags =
                ["kerf-plugin", "--node-name=n", "--placed", "--profile=deepomatic", "--gpu-duplication-factor=4"];
            let profile = Config::try_from(Args::parse_from(flags)).unwrap().profiles.remove(0);
            let host = |index: u32| {
                let name = format!("nvidia{index}");
                HostDevice {
                    device: Device::new(format!("GPU-{index}"), index, Mib(0)),
                    pci: String::new(),
                    nodes: Vec::new(),
                    control_nodes: Vec::new(),
                    origin: Origin::whole(Vendor::Nvidia, "nvidia", &name, ""),
                    facts: Default::default(),
                }
            };
            let cards = Cards::default().discovered((0..CARDS).map(host).collect());
            let pool = pool::pools(&profile, &cards).pools.remove(NAME).unwrap();
            let source = Source { profile: Some(Arc::new(profile)), cards: Some(Arc::new(cards)) };
            Self { roster: Roster::new([&source]), pool, order }
        }

        fn choose(
            &self,
            wish: &PreferredDevices,
            available: &[String],
            must: &[String],
            size: usize,
        ) -> Vec<String> {
            let places = Places { roster: &self.roster, resource: NAME };
            choose(wish, &places, self.order, &self.pool, available, must, size)
        }

        fn cards(&self, ids: &[String]) -> BTreeMap<&str, u32> {
            let mut cards = BTreeMap::new();
            ids.iter().for_each(|id| *cards.entry(self.roster.card(NAME, id).unwrap()).or_default() += 1);
            cards
        }
    }

    fn wish(cards: &[(u32, u32)], closed: &[u32]) -> PreferredDevices {
        let name = |card: &u32| DeviceId::from(format!("GPU-{card}"));
        PreferredDevices {
            cards: cards.iter().map(|(card, count)| (name(card), *count)).collect(),
            closed: closed.iter().map(name).collect(),
        }
    }

    #[test]
    fn recorded_cards_come_first_then_the_profiles_order_and_closed_cards_last() {
        let node = Node::new(Order::Distributed);
        let all: Vec<String> = node.pool.keys().cloned().collect();
        let chosen = node.choose(&wish(&[(2, 2), (1, 1)], &[]), &all, &[], 3);
        assert_eq!(node.cards(&chosen), BTreeMap::from([("GPU-1", 1), ("GPU-2", 2)]));
        // what must be is counted as part of it
        let must = ["nvidia2-_-4".to_owned()];
        let chosen = node.choose(&wish(&[(2, 2)], &[]), &all, &must, 2);
        assert!(chosen.contains(&must[0]));
        assert_eq!(node.cards(&chosen), BTreeMap::from([("GPU-2", 2)]));
        // without a record the profile's order, on cards that are open to it
        let chosen = node.choose(&wish(&[], &[0]), &all, &[], 2);
        assert_eq!(node.cards(&chosen), BTreeMap::from([("GPU-1", 1), ("GPU-2", 1)]));
        let chosen = node.choose(&wish(&[], &[0]), &all, &[], 9);
        assert_eq!(node.cards(&chosen), BTreeMap::from([("GPU-0", 1), ("GPU-1", 4), ("GPU-2", 4)]));
        // fewer are left of the recorded card than were recorded
        let left: Vec<String> =
            all.iter().filter(|id| !id.starts_with("nvidia2-_-") || id.ends_with('1')).cloned().collect();
        let chosen = node.choose(&wish(&[(2, 2)], &[]), &left, &[], 2);
        assert_eq!((chosen.len(), node.cards(&chosen)["GPU-2"]), (2, 1));
    }

    proptest! {
        #[test]
        fn a_preference_is_complete_keeps_what_must_be_and_names_only_what_is_there(
            picks in prop::collection::vec(any::<bool>(), (CARDS * SHARES) as usize), musts in 0usize..5, size in 0usize..14,
            cards in prop::collection::vec((0..CARDS, 0..6u32), 0..4), closed in prop::collection::vec(0..CARDS, 0..3),
            order in 0usize..6,
        ) {
            let orders = [Order::EachFirst, Order::Balanced, Order::Sorted, Order::Distributed, Order::Packed, Order::Connected];
            let node = Node::new(orders[order]);
            let available: Vec<String> =
                node.pool.keys().zip(&picks).filter(|(_, there)| **there).map(|(id, _)| id.clone()).collect();
            let must: Vec<String> = available.iter().take(musts.min(size)).cloned().collect();
            let wish = wish(&cards, &closed);
            let chosen = node.choose(&wish, &available, &must, size);
            prop_assert_eq!(chosen.len(), size.min(available.len()));
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            prop_assert!(chosen.iter().all(|id| available.contains(id)));
            prop_assert!(must.iter().all(|id| chosen.contains(id)));
            // of a wish that asks for no more than there is to choose, all that is there is chosen
            let wished: BTreeMap<&str, u32> = wish.cards.iter().map(|(card, count)| (card.as_str(), *count)).collect();
            if musts == 0 && wished.values().sum::<u32>() as usize <= size {
                let (there, got) = (node.cards(&available), node.cards(&chosen));
                for (card, count) in wished {
                    let most = count.min(there.get(card).copied().unwrap_or_default());
                    prop_assert!(got.get(card).copied().unwrap_or_default() >= most);
                }
            }
        }
    }
}
