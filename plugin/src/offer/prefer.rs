//! Which ids kubelet is advised to take for a container whose GPUs are on a placement record. Pure, and never
//! fails.

use std::collections::{BTreeMap, HashSet};

use crate::device::preferred::PreferredDevices;
use crate::offer::order::{self, Order};
use crate::offer::units::Pool;

/// Chooses `size` of `available`, those of `must` first; fewer only where fewer are available.
///
/// Takes ids of the preferred GPUs, as many of each as were recorded; the rest in the offer's order, those on
/// closed GPUs last. `gpu`: the name of an id's GPU on records.
pub fn choose<'a>(
    order: Order,
    pool: &Pool,
    preferred: &PreferredDevices,
    gpu: impl Fn(&'a str) -> Option<&'a str>,
    available: &'a [String],
    must: &'a [String],
    size: usize,
) -> Vec<String> {
    let mut left: BTreeMap<&str, (usize, u32)> = BTreeMap::new();
    for (at, (card, count)) in preferred.cards.iter().enumerate() {
        left.insert(card.as_str(), (at, count.unwrap_or(u32::MAX)));
    }
    let place = |id: &'a String| gpu(id).and_then(|card| left.get(card)).map(|(at, _)| *at);
    let mut rest: Vec<(usize, u32, &'a String)> =
        available.iter().filter_map(|id| Some((place(id)?, pool.get(id)?.share, id))).collect();
    rest.sort_unstable();
    rest.dedup();
    // of the preferred GPUs: whether the id is one that is still missing there
    let mut counts = |id: &'a String| {
        let left = gpu(id).and_then(|card| left.get_mut(card)).filter(|(_, left)| *left > 0);
        left.map(|(_, left)| *left -= 1).is_some()
    };
    let mut chosen: Vec<String> = must.to_vec();
    for id in must {
        counts(id);
    }
    let required: HashSet<&String> = must.iter().collect();
    chosen.extend(rest.into_iter().map(|(_, _, id)| id).filter(|id| !required.contains(id) && counts(id)).cloned());
    chosen.truncate(size);
    let closed =
        |id: &'a String| gpu(id).is_some_and(|card| preferred.closed.iter().any(|closed| closed.as_str() == card));
    let taken: HashSet<&String> = chosen.iter().collect();
    let open: Vec<String> = available.iter().filter(|id| taken.contains(id) || !closed(id)).cloned().collect();
    let chosen = order::choose(order, pool, &open, &chosen, size);
    if chosen.len() < size { order::choose(order, pool, available, &chosen, size) } else { chosen }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use kerf::device::Device;
    use kerf::ids::DeviceId;
    use kerf::units::Mib;
    use proptest::prelude::*;

    use super::*;
    use crate::device::backend::{HostDevice, Origin, Vendor};
    use crate::device::ids::{Base, IdStyle};
    use crate::offer::units::Units;

    const CARDS: u32 = 3;
    const SHARES: u32 = 4;

    /// Three GPUs of four shares, whose ids are not spelled as records spell them.
    struct Node {
        pool: Pool,
        order: Order,
    }

    /// The name of an id's GPU on records.
    fn gpu(id: &str) -> Option<&str> {
        let (name, _) = id.split_once("-_-")?;
        ["GPU-0", "GPU-1", "GPU-2"].into_iter().find(|card| name.ends_with(&card[4..]))
    }

    impl Node {
        fn new(order: Order) -> Self {
            let host = |index: u32| {
                let origin = Origin::whole(Vendor::Nvidia, "nvidia", &format!("nvidia{index}"), "");
                Arc::new(HostDevice::new(Device::new(format!("GPU-{index}"), index, Mib(0)), origin))
            };
            let ids = IdStyle { base: Base::Name, numbers: Some(("-_-", 1)) };
            Self { pool: Pool::new(ids, Units::Shares(SHARES), (0..CARDS).map(host).collect()), order }
        }

        fn choose(
            &self,
            preferred: &PreferredDevices,
            available: &[String],
            must: &[String],
            size: usize,
        ) -> Vec<String> {
            choose(self.order, &self.pool, preferred, gpu, available, must, size)
        }

        fn cards<'a>(&self, ids: &'a [String]) -> BTreeMap<&'a str, u32> {
            let mut cards = BTreeMap::new();
            ids.iter().for_each(|id| *cards.entry(gpu(id).unwrap()).or_default() += 1);
            cards
        }
    }

    fn wish(cards: &[(u32, u32)], closed: &[u32]) -> PreferredDevices {
        let name = |card: &u32| DeviceId::from(format!("GPU-{card}"));
        PreferredDevices {
            cards: cards.iter().map(|(card, count)| (name(card), Some(*count))).collect(),
            closed: closed.iter().map(name).collect(),
        }
    }

    #[test]
    fn recorded_cards_come_first_then_the_profiles_order_and_closed_cards_last() {
        let node = Node::new(Order::Distributed);
        let all: Vec<String> = node.pool.ids().collect();
        let chosen = node.choose(&wish(&[(2, 2), (1, 1)], &[]), &all, &[], 3);
        assert_eq!(node.cards(&chosen), BTreeMap::from([("GPU-1", 1), ("GPU-2", 2)]));
        // ids of `must` count as part of the preferred ones
        let must = ["nvidia2-_-4".to_owned()];
        let chosen = node.choose(&wish(&[(2, 2)], &[]), &all, &must, 2);
        assert!(chosen.contains(&must[0]));
        assert_eq!(node.cards(&chosen), BTreeMap::from([("GPU-2", 2)]));
        // without a record: the profile's order, on GPUs that are open to it
        let chosen = node.choose(&wish(&[], &[0]), &all, &[], 2);
        assert_eq!(node.cards(&chosen), BTreeMap::from([("GPU-1", 1), ("GPU-2", 1)]));
        let chosen = node.choose(&wish(&[], &[0]), &all, &[], 9);
        assert_eq!(node.cards(&chosen), BTreeMap::from([("GPU-0", 1), ("GPU-1", 4), ("GPU-2", 4)]));
        // fewer ids are left of the recorded GPU than were recorded
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
            order in 0usize..7,
        ) {
            let orders = [Order::EachFirst, Order::Balanced, Order::Sorted, Order::Distributed, Order::Packed, Order::Connected, Order::Tightest];
            let node = Node::new(orders[order]);
            let available: Vec<String> =
                node.pool.ids().zip(&picks).filter(|(_, there)| **there).map(|(id, _)| id).collect();
            let must: Vec<String> = available.iter().take(musts.min(size)).cloned().collect();
            let wish = wish(&cards, &closed);
            let chosen = node.choose(&wish, &available, &must, size);
            prop_assert_eq!(chosen.len(), size.min(available.len()));
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            prop_assert!(chosen.iter().all(|id| available.contains(id)));
            prop_assert!(must.iter().all(|id| chosen.contains(id)));
            // where no more are preferred than are available, all preferred ones are chosen
            let wished: BTreeMap<&str, u32> = wish.cards.iter().map(|(card, count)| (card.as_str(), count.unwrap())).collect();
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
