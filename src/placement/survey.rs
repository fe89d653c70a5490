//! A live cluster as a [`Market`]: nodes by name, host resources from the API server, and the demand learnt from the
//! pods that were seen. The extender keeps one, and `kerf plan` makes one from a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::market::{Class, Host, Market, Slot};
use super::rank::Rank;
use super::shape::{Cards, HostAmount, Shape};
use crate::ids::{NodeName, PodUid};
use crate::ledger::{Card, NodeLedger};
use crate::policy::Policy;
use crate::tally::Amount;
use crate::units::{Mib, Share};

/// What policies that weigh nodes against each other know of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    market: Market,
    nodes: BTreeMap<NodeName, Node>,
    /// Market numbers of deleted nodes, to be used again.
    vacant: Vec<usize>,
    loads: BTreeMap<PodUid, Load>,
    counted: BTreeMap<PodUid, Shape>,
    /// How many shapes the pods had when they were last counted again.
    shapes: usize,
}

/// Far more shapes than a cluster's pods have: a bound on the cost of pods in ever new shapes.
const MOST_SHAPES: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Load {
    node: NodeName,
    shape: Shape,
    /// Whether a scheduler chose the node: false for pods of DaemonSets and static pods.
    placed: bool,
}

/// A pod that was seen and has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting<'a> {
    pub shape: &'a Shape,
    pub node: Option<&'a NodeName>,
    /// Whether it belongs to its node, as a DaemonSet's pod does: it does not count as demand.
    pub resident: bool,
}

#[derive(Clone, Debug)]
struct Node {
    /// The market's number.
    number: usize,
    /// What it has for pods; `None`: not known, and it counts as having enough.
    allocatable: Option<HostAmount>,
    used: HostAmount,
    slots: Vec<Slot>,
}

/// What the market's pods may take of a card: nothing where it has counted shares.
fn free(card: &Card) -> Share {
    if card.undivided() { Share::ZERO } else { card.free() }
}

/// More than any machine has, and small enough to be summed.
const ENOUGH: u64 = 1 << 40;

// === what is seen ===

impl Survey {
    /// Updates a node's cards from its ledger.
    pub fn cards(&mut self, name: &NodeName, ledger: &NodeLedger) {
        let slots = ledger
            .cards()
            .iter()
            .map(|card| {
                let device = card.device();
                Slot {
                    free: free(card),
                    capacity: device.capacity(),
                    kind: self.market.kind(&device.model, device.memory),
                    whole: card.untouched(),
                }
            })
            .collect();
        let had_none = self.nodes.get(name).is_none_or(|node| node.slots.is_empty());
        self.change(name, |node| node.slots = slots);
        if had_none && self.has_cards(name) {
            let here = self.loads.iter().filter(|(_, load)| load.node == *name && load.competes());
            let here: Vec<(PodUid, Shape)> = here.map(|(uid, load)| (uid.clone(), load.shape.clone())).collect();
            here.iter().for_each(|(uid, shape)| self.count(uid, shape));
        }
    }

    /// Updates what a node has for pods; `None`: not known.
    pub fn allocatable(&mut self, name: &NodeName, amount: Option<HostAmount>) {
        self.change(name, |node| node.allocatable = amount);
    }

    /// A node was deleted. What its pods take is kept until they are gone too.
    pub fn forget(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            self.market.set(node.number, Host::default());
            self.vacant.push(node.number);
        }
    }

    /// A pod that has not ended was seen, with cards or without. Its demand counts once: immediately where it asks for
    /// cards, otherwise when it is bound to a node with cards, where it takes cores from pods with cards.
    pub fn seen(&mut self, uid: &PodUid, sighting: &Sighting<'_>) {
        if sighting.shape.cards != Cards::None {
            self.count(uid, sighting.shape);
        }
        if let Some(node) = sighting.node {
            let (node, shape) = (node.clone(), sighting.shape.clone());
            self.load(uid, Load { node, shape, placed: !sighting.resident });
        }
    }

    /// A pod that was seen is bound to this node.
    pub fn bound(&mut self, uid: &PodUid, node: &NodeName) {
        if let Some(shape) = self.counted.get(uid).cloned() {
            self.load(uid, Load { node: node.clone(), shape, placed: true });
        }
    }

    fn load(&mut self, uid: &PodUid, load: Load) {
        let known = self.loads.get(uid);
        if known == Some(&load) {
            return;
        }
        // its demand stays counted
        if let Some(before) = self.loads.remove(uid) {
            self.used(&before, HostAmount::minus);
        }
        if load.competes() && self.has_cards(&load.node) {
            self.count(uid, &load.shape);
        }
        self.used(&load, HostAmount::plus);
        self.loads.insert(uid.clone(), load);
    }

    fn used(&mut self, load: &Load, change: impl FnOnce(HostAmount, HostAmount) -> HostAmount) {
        if self.nodes.contains_key(&load.node) {
            self.change(&load.node, |node| node.used = change(node.used, load.amount()));
        }
    }

    fn has_cards(&self, name: &NodeName) -> bool {
        self.nodes.get(name).is_some_and(|node| !node.slots.is_empty())
    }

    fn count(&mut self, uid: &PodUid, shape: &Shape) {
        if !self.counted.contains_key(uid) {
            self.counted.insert(uid.clone(), shape.clone());
            let class = self.market.class(shape);
            self.market.arrived(class);
        }
        self.bound_shapes();
    }

    /// Where there are too many shapes, counts only the pods that exist now, as after a restart.
    fn bound_shapes(&mut self) {
        // where the present pods alone have this many, not at every further one
        if self.market.classes() <= MOST_SHAPES.max(2 * self.shapes) {
            return;
        }
        self.market.forget_demand();
        for shape in self.counted.values() {
            let class = self.market.class(shape);
            self.market.arrived(class);
        }
        self.shapes = self.market.classes();
    }

    /// A pod is gone. Its demand stays counted: more of its kind may come.
    pub fn unload(&mut self, uid: &PodUid) {
        if self.counted.remove(uid).is_some() {
            self.market.left();
        }
        if let Some(load) = self.loads.remove(uid) {
            self.used(&load, HostAmount::minus);
        }
    }

    /// Forgets pods that are not in `seen`.
    pub fn retain(&mut self, seen: &BTreeSet<PodUid>) {
        let known = self.loads.keys().chain(self.counted.keys());
        let gone: BTreeSet<PodUid> = known.filter(|uid| !seen.contains(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.unload(uid));
    }

    fn change(&mut self, name: &NodeName, change: impl FnOnce(&mut Node)) {
        if !self.nodes.contains_key(name) {
            let number = self.vacant.pop().unwrap_or_else(|| self.market.add(Host::default()));
            let of_node = self.loads.values().filter(|load| load.node == *name);
            let used = of_node.fold(HostAmount::default(), |sum, load| sum.plus(load.amount()));
            self.nodes.insert(name.clone(), Node { number, allocatable: None, used, slots: Vec::new() });
        }
        if let Some(node) = self.nodes.get_mut(name) {
            change(node);
            self.market.set(node.number, node.host(node.slots.clone()));
        }
    }
}

impl Load {
    fn amount(&self) -> HostAmount {
        HostAmount { cpu: self.shape.cpu, memory: self.shape.memory, pods: 1 }
    }

    /// Whether it has no cards and a scheduler chose its node: it competes with pods with cards for cores.
    fn competes(&self) -> bool {
        self.placed && self.shape.cards == Cards::None
    }
}

impl Node {
    fn host(&self, slots: Vec<Slot>) -> Host {
        let enough = HostAmount { cpu: ENOUGH, memory: Mib(ENOUGH), pods: ENOUGH };
        let all = self.allocatable.unwrap_or(enough);
        let free = all.minus(self.used);
        Host {
            cpu: free.cpu,
            cpu_capacity: all.cpu,
            memory: free.memory,
            memory_capacity: all.memory,
            pods: free.pods,
            slots,
        }
    }
}

// === what is asked ===

impl Survey {
    /// What is left of a node's host; `None` where it is not known what the node has.
    pub fn left(&self, name: &str) -> Option<HostAmount> {
        let node = self.nodes.get(name)?;
        Some(node.allocatable?.minus(node.used))
    }

    /// What a bound pod takes of its node's host, if it was seen.
    pub fn taken(&self, uid: &PodUid) -> Option<HostAmount> {
        self.loads.get(uid).map(Load::amount)
    }

    pub fn shape(&self, uid: &PodUid) -> Option<&Shape> {
        self.counted.get(uid)
    }

    /// The rank of each node for a pod; less is better. A node where by this survey only the cards suffice comes last,
    /// but is not excluded: kube-scheduler counts the other resources and decides.
    pub fn ranks<'a>(&mut self, policy: Policy, shape: &Shape, names: impl Iterator<Item = &'a str>) -> Vec<Rank> {
        let class = self.asked(shape);
        let number = |name| self.nodes.get(name).map_or(usize::MAX, |node| node.number);
        let numbers: Vec<usize> = names.map(number).collect();
        self.market.ranks(policy, class, &numbers).into_iter().map(|rank| rank.unwrap_or(Rank::LAST)).collect()
    }

    /// The rank of one node whose cards have the pods of `later` instead of the present ones.
    pub fn rank_later(&mut self, policy: Policy, shape: &Shape, name: &str, later: &NodeLedger) -> Rank {
        let class = self.asked(shape);
        self.later(name, later)
            .and_then(|host| Some(self.market.rate(policy, class, &host)?.0))
            .unwrap_or(Rank::LAST)
    }

    /// The preferred card of the node for a share, by its position in the ledger.
    pub fn card(&mut self, policy: Policy, shape: &Shape, name: &str) -> Option<usize> {
        let class = self.asked(shape);
        let host = self.market.host(self.nodes.get(name)?.number)?.clone();
        self.market.rate(policy, class, &host)?.1.first().copied()
    }

    /// The class of a shape that is asked about. Shapes that were only asked about are forgotten when there are many.
    fn asked(&mut self, shape: &Shape) -> Class {
        self.bound_shapes();
        self.market.class(shape)
    }

    fn later(&mut self, name: &str, later: &NodeLedger) -> Option<Host> {
        let node = self.nodes.get(name)?;
        let slots = node.slots.iter().zip(later.cards()).map(|(slot, card)| Slot {
            free: free(card),
            whole: card.untouched(),
            ..*slot
        });
        Some(node.host(slots.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Device, Inventory};

    const SHAPE: Shape = Shape { cpu: 4000, memory: Mib(4096), cards: Cards::None, models: Vec::new() };

    fn ledger() -> NodeLedger {
        with_cards(1)
    }

    fn with_cards(count: u32) -> NodeLedger {
        let devices = (0..count).map(|index| Device::new(format!("GPU-{index}"), index, Mib(16_384)));
        let mut ledger = NodeLedger::default();
        ledger.set_inventory(&Inventory::new(devices.collect()));
        ledger
    }

    fn see(survey: &mut Survey, uid: &str, node: &NodeName, resident: bool) -> bool {
        let uid = PodUid::from(uid);
        survey.seen(&uid, &Sighting { shape: &SHAPE, node: Some(node), resident });
        survey.shape(&uid).is_some()
    }

    #[test]
    fn pods_without_cards_are_demand_where_they_compete_for_cores() {
        let (gpus, plain) = (NodeName::from("gpus"), NodeName::from("plain"));
        let mut survey = Survey::default();
        survey.cards(&gpus, &ledger());
        assert!(see(&mut survey, "batch", &gpus, false));
        assert!(!see(&mut survey, "of-a-daemon-set", &gpus, true));
        assert!(!see(&mut survey, "elsewhere", &plain, false));
        // the node's cards become known after its pods
        survey.cards(&plain, &ledger());
        assert!(survey.shape(&"elsewhere".into()).is_some());
    }

    #[test]
    fn shapes_of_pods_that_are_gone_are_forgotten_when_there_are_too_many() {
        let mut survey = Survey::default();
        for number in 0..20_000u64 {
            let shape = Shape { cpu: number, cards: Cards::Whole(2), ..SHAPE };
            let uid = PodUid::from(format!("pod-{number}"));
            survey.seen(&uid, &Sighting { shape: &shape, node: None, resident: false });
            assert!(survey.market.classes() <= MOST_SHAPES);
            if number >= 10 {
                survey.unload(&uid);
            }
        }
        assert!(survey.shape(&"pod-9".into()).is_some());
    }

    /// Where pods leave, a pod without cards goes to a node whose cores are in use; otherwise to an empty one.
    #[test]
    fn pods_that_are_gone_count_as_having_left() {
        let suits = |leave| {
            let mut survey = Survey::default();
            for (name, cards, cpu, used) in [("used", 1, 200_000, 190_000), ("free", 8, 96_000, 0)] {
                let node = NodeName::from(name);
                survey.cards(&node, &with_cards(cards));
                survey.allocatable(&node, Some(HostAmount { cpu, memory: Mib(1 << 20), pods: 100 }));
                let shape = Shape { cpu: used, ..SHAPE };
                survey.seen(&name.into(), &Sighting { shape: &shape, node: Some(&node), resident: true });
            }
            for number in 0..256 {
                // eleven cores for a card, on average
                let cpu = if number % 2 == 0 { 4_000 } else { 18_000 };
                let shape = Shape { cpu, cards: Cards::Whole(1), ..SHAPE };
                let uid = PodUid::from(format!("pod-{number}"));
                survey.seen(&uid, &Sighting { shape: &shape, node: None, resident: false });
                if leave {
                    survey.unload(&uid);
                }
            }
            let shape = Shape { cpu: 8_000, ..SHAPE };
            let ranks = survey.ranks(Policy::Fragmentation, &shape, ["used", "free"].into_iter());
            if ranks[0] < ranks[1] { "used" } else { "free" }
        };
        assert_eq!((suits(false), suits(true)), ("free", "used"));
    }

    #[test]
    fn a_bound_pod_takes_its_cores_before_the_watch_says_so() {
        let node = NodeName::from("node");
        let all = HostAmount { cpu: 8000, memory: Mib(8192), pods: 10 };
        let mut survey = Survey::default();
        survey.cards(&node, &ledger());
        survey.allocatable(&node, Some(all));
        let shape = Shape { cards: Cards::Whole(1), ..SHAPE };
        let uid = PodUid::from("pod");
        survey.seen(&uid, &Sighting { shape: &shape, node: None, resident: false });
        assert_eq!(survey.left("node"), Some(all));
        survey.bound(&uid, &node);
        let left = Some(HostAmount { cpu: 4000, memory: Mib(4096), pods: 9 });
        assert_eq!(survey.left("node"), left);
        survey.seen(&uid, &Sighting { shape: &shape, node: Some(&node), resident: false });
        assert_eq!(survey.left("node"), left, "it counts once");
        survey.unload(&uid);
        assert_eq!(survey.left("node"), Some(all));
    }
    #[test]
    fn shapes_that_are_only_asked_about_leave_nothing_behind() {
        let mut survey = Survey::default();
        let share = |number: u32| Cards::Share(Share::new(1 + number % 990, 1 + u64::from(number / 990)));
        for number in 0..20_000 {
            let shape = Shape { cpu: 1, memory: Mib(1), cards: share(number), models: Vec::new() };
            survey.ranks(Policy::Fragmentation, &shape, std::iter::empty());
            assert!(survey.market.classes() <= MOST_SHAPES + 2, "{number}");
        }
    }
}
