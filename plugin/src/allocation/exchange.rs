//! Two containers change places: each has what was assumed of the other.

use kerf::ids::ContainerName;
use kerf::plan::Grant;
use kerf::units::Milli;

use crate::allocation::allocations::Allocations;
use crate::allocation::claim::Claim;
use crate::allocation::entry::{Entry, is_init};
use crate::allocation::pod::Key;

impl Allocations {
    /// What was assumed of `a` is true of `b`, and the other way round. Pods of one shape change places as a whole;
    /// otherwise the two containers do, if they ask for the same. Returns whether they did.
    pub(super) fn exchange(&mut self, a: &Key, b: &Key) -> bool {
        let (Some(left), Some(right)) = (self.pods.get(&a.pod), self.pods.get(&b.pod)) else { return false };
        if left.placement().is_none() != right.placement().is_none() {
            return false;
        }
        if a.pod != b.pod
            && untouched(left)
            && untouched(right)
            && shape(left).eq(shape(right))
            && left.position(&a.container) == right.position(&b.container)
        {
            let pairs: Vec<_> = names(left).zip(names(right)).collect();
            for (name_a, name_b) in pairs {
                self.exchange_pair(
                    &Key { pod: a.pod.clone(), container: name_a },
                    &Key { pod: b.pod.clone(), container: name_b },
                );
            }
        } else if self.alike(a, b) {
            self.exchange_pair(a, b);
        } else {
            return false;
        }
        self.open = match self.open.take() {
            Some(uid) if uid == a.pod => Some(b.pod.clone()),
            Some(uid) if uid == b.pod => Some(a.pod.clone()),
            other => other,
        };
        true
    }

    /// Whether `a` and `b` may be served in each other's place and change records afterwards: in pods of one shape,
    /// or each for as long as its pod, since an init container shares its GPUs with those after it. They must have
    /// the same ceiling for bursts, so that the limits that the one was served with are right for the other.
    pub(super) fn interchangeable(&self, a: &Key, b: &Key) -> bool {
        let (Some(left), Some(right)) = (self.pods.get(&a.pod), self.pods.get(&b.pod)) else { return false };
        let lasting = |entry: &Entry| !entry.pod.request.containers.iter().any(|c| is_init(c.kind));
        self.alike(a, b)
            && ceiling(left) == ceiling(right)
            && (shape(left).eq(shape(right)) || (lasting(left) && lasting(right)))
    }

    pub(super) fn alike(&self, a: &Key, b: &Key) -> bool {
        let ask = |key: &Key| {
            let entry = self.pods.get(&key.pod)?;
            entry.pod.request.containers.get(entry.position(&key.container)?).map(|container| container.ask.clone())
        };
        ask(a).is_some() && ask(a) == ask(b)
    }

    fn exchange_pair(&mut self, a: &Key, b: &Key) {
        self.swap_cards(a, b);
        self.answers.exchange(a, b);
        let mut take =
            |key: &Key| self.pods.get_mut(&key.pod).and_then(|entry| entry.claims.remove(&key.container));
        let (of_a, of_b) = (take(a), take(b));
        for (key, claim) in [(a, of_b), (b, of_a)] {
            if let (Some(entry), Some(claim)) = (self.pods.get_mut(&key.pod), claim) {
                entry.claims.insert(key.container.clone(), claim);
            }
        }
    }

    /// Two containers change GPUs; each keeps its own amounts.
    pub(super) fn swap_cards(&mut self, a: &Key, b: &Key) {
        let grant = |claims: &Self, key: &Key| {
            claims.pods.get(&key.pod)?.grant(&key.container).map(|grant| grant.gpus.clone())
        };
        let (Some(of_a), Some(of_b)) = (grant(self, a), grant(self, b)) else { return };
        for (key, own, other) in [(a, &of_a, &of_b), (b, &of_b, &of_a)] {
            let entry = self.pods.get_mut(&key.pod);
            if let Some(grant) = entry.and_then(|entry| entry.correct(&key.container)) {
                grant.gpus = moved(own, other);
            }
        }
    }
}

/// The ceiling for bursts that its containers' limits are written with.
fn ceiling(entry: &Entry) -> Option<Milli> {
    entry.placement().map_or(entry.pod.request.limit, |placement| placement.limit)
}

fn names(entry: &Entry) -> impl Iterator<Item = ContainerName> {
    entry.pod.request.containers.iter().map(|container| container.name.clone())
}

fn shape(entry: &Entry) -> impl Iterator<Item = impl PartialEq> {
    let containers = entry.pod.request.containers.iter();
    containers.map(|c| (c.kind, c.ask.clone()))
}

/// Whether kubelet has listed no part of the pod: a pod keeps the part that was listed.
fn untouched(entry: &Entry) -> bool {
    !entry.claims.values().any(Claim::was_confirmed)
}

/// `own` on the GPUs of `other`, which asks for the same.
fn moved(own: &Grant, other: &Grant) -> Grant {
    match (own, other) {
        (Grant::Share { share, .. }, Grant::Share { device, .. }) => {
            Grant::Share { device: device.clone(), share: *share }
        }
        (Grant::Whole(mine), Grant::Whole(theirs)) if mine.len() == theirs.len() => other.clone(),
        // the same number of shares, however they are divided among GPUs
        (Grant::Counted { resource, .. }, Grant::Counted { resource: same, .. }) if resource == same => {
            other.clone()
        }
        _ => own.clone(),
    }
}
