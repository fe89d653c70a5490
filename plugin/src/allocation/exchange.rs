//! Two containers change places: each has what was assumed of the other.

use kerf::plan::Grant;
use kerf::request::{Ask, ContainerKind};
use kerf::units::Milli;

use crate::allocation::{Allocations, Claim, Entry, Key, is_init};

impl Allocations {
    /// What was assumed of `a` is true of `b`, and the other way round. Pods of one shape change places as a whole;
    /// otherwise the two containers do, if they ask for the same. Returns whether they did.
    pub(super) fn exchange(&mut self, a: &Key, b: &Key) -> bool {
        let (Some(left), Some(right)) = (self.pods.get(&a.pod), self.pods.get(&b.pod)) else { return false };
        if left.placement.is_none() != right.placement.is_none() {
            return false;
        }
        let position = |entry: &Entry, key: &Key| keys(entry).position(|own| own == *key);
        if a.pod != b.pod
            && untouched(left)
            && untouched(right)
            && shape(left).eq(shape(right))
            && position(left, a) == position(right, b)
        {
            let pairs: Vec<_> = keys(left).zip(keys(right)).collect();
            pairs.iter().for_each(|(a, b)| self.exchange_pair(a, b));
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
        let lasting = |entry: &Entry| !entry.containers().iter().any(is_init);
        self.alike(a, b)
            && ceiling(left) == ceiling(right)
            && (shape(left).eq(shape(right)) || (lasting(left) && lasting(right)))
    }

    pub(super) fn alike(&self, a: &Key, b: &Key) -> bool {
        let (a, b) = (self.requested(a), self.requested(b));
        a.zip(b).is_some_and(|(a, b)| a.ask == b.ask)
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
        let grant = |key: &Key| self.granted(key).map(|grant| grant.gpus.clone());
        let (Some(of_a), Some(of_b)) = (grant(a), grant(b)) else { return };
        for (key, own, other) in [(a, &of_a, &of_b), (b, &of_b, &of_a)] {
            if let Some(grant) = self.correct(key) {
                grant.gpus = moved(own, other);
            }
        }
    }
}

/// The ceiling for bursts that its containers' limits are written with.
fn ceiling(entry: &Entry) -> Option<Milli> {
    entry.placement.as_ref().map_or(entry.pod.request.limit, |placement| placement.limit)
}

fn keys(entry: &Entry) -> impl Iterator<Item = Key> {
    entry.containers().iter().map(|container| entry.key(&container.name))
}

fn shape(entry: &Entry) -> impl Iterator<Item = (ContainerKind, &Ask)> {
    entry.containers().iter().map(|container| (container.kind, &container.ask))
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
