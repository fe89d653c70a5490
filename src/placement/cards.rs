//! Which of several free cards to take together.

use std::cmp::Reverse;

use crate::device::Device;
use crate::ledger::Card;
use crate::units::Mib;

/// Chooses `count` of the `free` cards (positions in `cards`), with at least `memory` in total where asked. The first
/// `own` of `free` are taken before any other. `None` where there are too few, or too little memory.
pub(super) fn best_set(
    cards: &[Card],
    free: &[usize],
    own: usize,
    count: usize,
    memory: Option<Mib>,
) -> Option<Vec<usize>> {
    if free.len() < count {
        return None;
    }
    let device = |at: usize| cards.get(at).map(Card::device);
    let size = |at: usize| device(at).map_or(0, |device| device.memory.0);
    let enough =
        |set: &[usize]| memory.is_none_or(|memory| set.iter().map(|at| size(*at)).sum::<u64>() >= memory.0);
    let (held, rest) = free.split_at(own.min(free.len()));
    let mut set: Vec<usize> = held.iter().copied().take(count).collect();
    let mut rest = rest.to_vec();
    rest.sort_by_key(|at| (size(*at), *at));
    if let Some(memory) = memory {
        // cards with an equal part of the memory each are always enough; with fewer such cards, take the largest
        let part = memory.0.div_ceil(count.max(1) as u64);
        let missing = count - set.len();
        let large = rest.partition_point(|at| size(*at) < part);
        if rest.len() - large >= missing {
            rest.drain(..large);
        } else {
            rest.drain(..rest.len() - missing);
        }
    }
    if set.len() < count {
        set = grow_best(cards, &set, &rest, count)?;
    }
    enough(&set).then_some(set)
}

/// Up to this many free cards every set is compared: that covers most nodes.
const ALL_SETS: usize = 8;

/// The best-connected set of `held` and some of `rest`; ties go to the set with the earliest of `rest`.
fn grow_best(cards: &[Card], held: &[usize], rest: &[usize], count: usize) -> Option<Vec<usize>> {
    let weights: Vec<u32> =
        cards.iter().flat_map(|a| cards.iter().map(|b| weight(a.device(), b.device()))).collect();
    let link = |a: usize, b: usize| weights.get(a * cards.len() + b).copied().unwrap_or_default();
    let linked = rest.iter().any(|a| rest.iter().chain(held).any(|b| a != b && link(*a, *b) > 0));
    if !linked {
        return Some(held.iter().chain(rest).copied().take(count).collect());
    }
    let to = |at: usize, set: &[usize]| set.iter().map(|other| link(at, *other)).sum::<u32>();
    let sets: Vec<Vec<usize>> = if rest.len() <= ALL_SETS {
        every_set(held, rest, count)
    } else {
        rest.iter().filter_map(|first| grown(held, rest, *first, count, link)).collect()
    };
    sets.into_iter()
        .enumerate()
        .max_by_key(|(order, set)| {
            let pairs = || set.iter().enumerate().flat_map(|(i, a)| set.iter().skip(i + 1).map(|b| link(*a, *b)));
            let cut: u32 = rest.iter().filter(|at| !set.contains(at)).map(|at| to(*at, set)).sum();
            (pairs().min(), pairs().sum::<u32>(), Reverse(cut), Reverse(*order))
        })
        .map(|(_, set)| set)
}

/// `held` and `first`, then one by one the card of `rest` with the best links to those taken, up to `count`.
fn grown(
    held: &[usize],
    rest: &[usize],
    first: usize,
    count: usize,
    link: impl Fn(usize, usize) -> u32,
) -> Option<Vec<usize>> {
    let mut set = held.to_vec();
    // what is left of `rest`, with its links to the set so far
    let links = |at: usize| held.iter().map(|other| link(at, *other)).sum::<u32>();
    let mut left: Vec<(usize, u32)> = rest.iter().map(|at| (*at, links(*at))).collect();
    let mut next = rest.iter().position(|at| *at == first)?;
    loop {
        let (taken, _) = left.remove(next);
        set.push(taken);
        if set.len() >= count {
            return Some(set);
        }
        left.iter_mut().for_each(|(at, links)| *links += link(*at, taken));
        // ties go to the first, so that the order of `rest` decides
        next = left.iter().enumerate().rev().max_by_key(|(_, (_, links))| *links)?.0;
    }
}

/// Every set of `count` cards with all of `held`; sets with earlier cards of `rest` come first.
fn every_set(held: &[usize], rest: &[usize], count: usize) -> Vec<Vec<usize>> {
    let missing = count.saturating_sub(held.len());
    // the highest bit is the first card, so that larger numbers are earlier sets
    let chosen = |set: u32, place: usize| set >> (rest.len() - 1 - place) & 1 == 1;
    (0..1u32 << rest.len())
        .rev()
        .filter(|set| set.count_ones() as usize == missing)
        .map(|set| {
            let added = rest.iter().enumerate().filter(|(place, _)| chosen(set, *place)).map(|(_, at)| at);
            held.iter().chain(added).copied().collect()
        })
        .collect()
}

/// The weight of the link between two cards; where no link is known, whether they share a NUMA node.
fn weight(a: &Device, b: &Device) -> u32 {
    let link = a.links.get(&b.index).or_else(|| b.links.get(&a.index));
    let same_numa = a.numa.is_some() && a.numa == b.numa;
    link.map_or(u32::from(same_numa), |link| link.weight())
}

#[cfg(test)]
mod tests {
    use crate::device::{Device, Inventory, Link};
    use crate::ledger::NodeLedger;
    use crate::placement::Planner;
    use crate::policy::Policy;
    use crate::request::{ContainerKind, GpuRequest, RawAnnotations, RawContainer};
    use crate::unfit::Unfit;
    use crate::units::Mib;

    fn node(memory: &[u64], link: impl Fn(u32, u32) -> Option<Link>) -> NodeLedger {
        let count = u32::try_from(memory.len()).unwrap();
        let device = |index: u32| {
            let mut device = Device::new(format!("gpu-{index}"), index, Mib(memory[index as usize]));
            device.links = (0..count).filter_map(|peer| Some((peer, link(index, peer)?))).collect();
            device
        };
        NodeLedger::new(&Inventory::new((0..count).map(device).collect()))
    }

    fn pick(node: &NodeLedger, core: &str, memory: Option<&str>) -> Result<Vec<u32>, Unfit> {
        let raw = RawContainer { name: "main", kind: ContainerKind::App, core: Some(core), memory, counted: &[] };
        let request = GpuRequest::parse([raw], RawAnnotations::default()).unwrap().unwrap();
        let plan = Planner::default().plan(node, &request, Policy::Binpack)?;
        Ok(plan.grants[0].gpus.devices().map(|device| device.index).collect())
    }

    /// gpu-manager's example of six cards: {0,1}, {2,3}, {4,5} on one switch each, {0,1,2,3} on one host bridge.
    fn t6(a: u32, b: u32) -> Option<Link> {
        Some(match (a.min(b), a.max(b)) {
            (0, 1) | (2, 3) | (4, 5) => Link::Switch,
            (_, 0..=3) => Link::HostBridge,
            _ => Link::System,
        })
    }

    #[test]
    fn several_cards_are_the_best_connected() {
        let t6 = node(&[1024; 6], t6);
        assert_eq!(pick(&t6, "200", None), Ok(vec![4, 5]), "a pair whose loss cuts no host bridge");
        assert_eq!(pick(&t6, "300", None), Ok(vec![0, 1, 2]));
        assert_eq!(pick(&t6, "400", None), Ok(vec![0, 1, 2, 3]));
        assert_eq!(pick(&t6, "600", None), Ok(vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(pick(&t6, "700", None), Err(Unfit::TooFewCards));
        let nvlink = node(&[1024; 4], |a, b| Some(if a % 2 == b % 2 { Link::NvLink(4) } else { Link::Switch }));
        assert_eq!(pick(&nvlink, "200", None), Ok(vec![0, 2]), "NVLink before PCIe");
    }

    /// Every card of the largest node linked to every other, and half of them on one NUMA node.
    #[test]
    fn the_largest_node_is_planned_in_bounded_time() {
        let memory = [1024; crate::device::MAX_CARDS];
        let linked = node(&memory, |a, b| Some(Link::NvLink(u8::try_from((a * 7 + b * 13) % 18).unwrap())));
        let began = std::time::Instant::now();
        for count in [2, 16, 32, 48, 63] {
            let found = pick(&linked, &(count * 100).to_string(), Some(&(count * 4).to_string())).unwrap();
            assert_eq!(found.len(), count);
        }
        assert_eq!(pick(&linked, "6400", Some("256")).unwrap().len(), 64);
        assert_eq!(pick(&linked, "6400", Some("257")), Err(Unfit::TooFewCards));
        // without optimisation, on a busy machine; the loop that this replaced took minutes
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[test]
    fn one_card_alone_is_the_worst_connected() {
        let t6 = node(&[1024; 6], t6);
        assert_eq!(pick(&t6, "100", None), Ok(vec![4]));
        let alone = node(&[1024; 3], |a, b| (a != 1 && b != 1).then_some(Link::NvLink(2)));
        assert_eq!(pick(&alone, "100", None), Ok(vec![1]));
    }

    #[test]
    fn memory_of_whole_cards_must_be_there() {
        let mixed = node(&[4096, 8192, 8192, 16384], |_, _| None);
        assert_eq!(pick(&mixed, "100", None), Ok(vec![0]), "the smallest");
        assert_eq!(pick(&mixed, "100", Some("30")), Ok(vec![1]));
        assert_eq!(pick(&mixed, "200", Some("64")), Ok(vec![1, 2]));
        assert_eq!(pick(&mixed, "200", Some("96")), Ok(vec![2, 3]), "together, where not each has its part");
        assert_eq!(pick(&mixed, "200", Some("97")), Err(Unfit::TooFewCards));
    }
}
