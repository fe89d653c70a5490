//! A live cluster as a [`Market`]: nodes by name, host resources from what the API server says, and the demand learnt
//! from the pods that were seen. The extender keeps one, and `kerf plan` makes one from a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::market::{Class, Host, Market, Slot};
use super::shape::{HostAmount, Shape};
use super::{Policy, Rank};
use crate::ids::{NodeName, PodUid};
use crate::ledger::NodeLedger;
use crate::units::Mib;

/// What the policies that look at more than one node's cards know.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    market: Market,
    nodes: BTreeMap<NodeName, Node>,
    /// Numbers of nodes that are gone.
    vacant: Vec<usize>,
    /// What each bound pod takes of its node's host.
    loads: BTreeMap<PodUid, (NodeName, HostAmount)>,
    /// Pods whose demand was counted.
    counted: BTreeMap<PodUid, Shape>,
}

/// One node.
#[derive(Clone, Debug)]
struct Node {
    /// In the market.
    number: usize,
    /// What it has for pods; absent: it does not say, and is taken to have enough.
    allocatable: Option<HostAmount>,
    used: HostAmount,
    slots: Vec<Slot>,
}

/// More than any machine has, and small enough to add up.
const ENOUGH: u64 = 1 << 40;

// === what is seen ===

impl Survey {
    /// A node's cards, as its ledger has them now.
    pub fn cards(&mut self, name: &NodeName, ledger: &NodeLedger) {
        let slots = ledger
            .cards()
            .iter()
            .map(|card| {
                let device = card.device();
                Slot {
                    free: card.free(),
                    capacity: device.capacity(),
                    kind: self.market.kind(&device.model, device.memory),
                    whole: card.untouched(),
                }
            })
            .collect();
        self.change(name, |node| node.slots = slots);
    }

    /// What a node has for pods.
    pub fn allocatable(&mut self, name: &NodeName, amount: Option<HostAmount>) {
        self.change(name, |node| node.allocatable = amount);
    }

    /// A node is gone. What its pods take is remembered until they are gone too.
    pub fn forget(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            self.market.set(node.number, Host::default());
            self.vacant.push(node.number);
        }
    }

    /// A pod, with cards or without, runs on this node.
    pub fn load(&mut self, uid: &PodUid, name: &NodeName, amount: HostAmount) {
        if self.loads.get(uid).is_some_and(|(known, before)| known == name && *before == amount) {
            return;
        }
        self.unload(uid);
        self.loads.insert(uid.clone(), (name.clone(), amount));
        if self.nodes.contains_key(name) {
            self.change(name, |node| node.used = node.used.plus(amount));
        }
    }

    /// A pod is gone. Its demand stays counted: more of its kind may come.
    pub fn unload(&mut self, uid: &PodUid) {
        self.counted.remove(uid);
        if let Some((name, amount)) = self.loads.remove(uid)
            && self.nodes.contains_key(&name)
        {
            self.change(&name, |node| node.used = node.used.minus(amount));
        }
    }

    /// Pods that are not among these are gone.
    pub fn retain(&mut self, seen: &BTreeSet<PodUid>) {
        let known = self.loads.keys().chain(self.counted.keys());
        let gone: BTreeSet<PodUid> = known.filter(|uid| !seen.contains(*uid)).cloned().collect();
        gone.iter().for_each(|uid| self.unload(uid));
    }

    /// A pod that asks for cards was seen; it counts once.
    pub fn seen(&mut self, uid: &PodUid, shape: &Shape) {
        if !self.counted.contains_key(uid) {
            self.counted.insert(uid.clone(), shape.clone());
            let class = self.market.class(shape);
            self.market.arrived(class);
        }
    }

    fn change(&mut self, name: &NodeName, change: impl FnOnce(&mut Node)) {
        if !self.nodes.contains_key(name) {
            let number = self.vacant.pop().unwrap_or_else(|| self.market.add(Host::default()));
            let of_node = self.loads.values().filter(|(home, _)| home == name);
            let used = of_node.fold(HostAmount::default(), |sum, (_, amount)| sum.plus(*amount));
            self.nodes.insert(name.clone(), Node { number, allocatable: None, used, slots: Vec::new() });
        }
        if let Some(node) = self.nodes.get_mut(name) {
            change(node);
            self.market.set(node.number, node.host(node.slots.clone()));
        }
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
    /// What a pod asks for, if it was seen.
    pub fn shape(&self, uid: &PodUid) -> Option<&Shape> {
        self.counted.get(uid)
    }

    /// How well each node suits a pod; less is better. A node where it fits only by the cards, as far as is known
    /// here, comes last: kube-scheduler, which counts the rest, knows better.
    pub fn ranks<'a>(&mut self, policy: Policy, shape: &Shape, names: impl Iterator<Item = &'a str>) -> Vec<Rank> {
        let class = self.market.class(shape);
        let number = |name| self.nodes.get(name).map_or(usize::MAX, |node| node.number);
        let numbers: Vec<usize> = names.map(number).collect();
        self.market.ranks(policy, class, &numbers).into_iter().map(|rank| rank.unwrap_or(Rank::LAST)).collect()
    }

    /// The same for one node with other pods on its cards than it has now.
    pub fn rank_later(&mut self, policy: Policy, shape: &Shape, name: &str, later: &NodeLedger) -> Rank {
        let class = self.market.class(shape);
        self.later(name, later).and_then(|host| Some(self.rate(policy, class, &host)?.0)).unwrap_or(Rank::LAST)
    }

    /// The card of the node that a share should get, by its position in the ledger.
    pub fn card(&mut self, policy: Policy, shape: &Shape, name: &str) -> Option<usize> {
        let class = self.market.class(shape);
        let host = self.market.host(self.nodes.get(name)?.number)?.clone();
        self.rate(policy, class, &host)?.1.first().copied()
    }

    fn rate(&mut self, policy: Policy, class: Class, host: &Host) -> Option<(Rank, Vec<usize>)> {
        self.market.rate(policy, class, host)
    }

    fn later(&mut self, name: &str, later: &NodeLedger) -> Option<Host> {
        let node = self.nodes.get(name)?;
        let slots = node.slots.iter().zip(later.cards()).map(|(slot, card)| Slot {
            free: card.free(),
            whole: card.untouched(),
            ..*slot
        });
        Some(node.host(slots.collect()))
    }
}
