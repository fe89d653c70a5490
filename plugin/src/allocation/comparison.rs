//! kubelet's list against what was assumed: wrong assumptions and records are corrected.

use std::collections::BTreeMap;

use kerf::ids::PodRef;

use crate::allocation::{Allocations, Claim, ContainerResources, Event, Key, Listing, Question, resources};
use crate::device::ids::{Ids, Resource};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Assumptions that were wrong: the container assumed, and the one that really has the ids.
    pub swaps: Vec<(Key, Key)>,
    /// Allocations that were found again after a restart of the plugin.
    pub adopted: Vec<Key>,
    /// Containers whose ids name other GPUs than were recorded.
    pub moved: Vec<Key>,
    /// Pods of containers that are not known here (yet), or that have no trusted placement.
    pub unknown: Vec<PodRef>,
}

/// kubelet's answer to a question: the containers that are known, with what they hold.
struct Answered<'a> {
    question: Question,
    held: BTreeMap<Key, &'a ContainerResources>,
}

impl Allocations {
    /// Compares with kubelet's complete list. A list older than one that was already taken changes nothing.
    pub fn reconcile(&mut self, listing: &Listing, question: Question) -> Comparison {
        let mut findings = Comparison::default();
        let over = self.over();
        let asks = |pod: &PodRef| self.pods.values().any(|entry| entry.pod.reference == *pod);
        let taken = self.kubelet.take(listing, &over, asks, question);
        let Some(listing) = &taken else { return findings };
        for entry in self.pods.values_mut() {
            let here = listing.pods.contains(&entry.pod.reference);
            for (_, claim, init) in entry.claims_mut().filter(|(_, claim, _)| question.noted(claim.call())) {
                claim.happens(if here && init { Event::PodListed } else { Event::NotListed });
            }
        }
        let mut answered = Answered { question, held: BTreeMap::new() };
        for item in listing.held.iter().filter(|item| !item.ids.is_empty()) {
            let entry = self.by_reference(&item.pod);
            match entry.filter(|entry| entry.container(&item.container).is_some()) {
                Some(entry) => drop(answered.held.insert(entry.key(&item.container), item)),
                None => findings.unknown.push(item.pod.clone()),
            }
        }
        for (key, item) in &answered.held {
            self.take(key, item, &answered, &mut findings);
        }
        self.void(listing, question);
        self.adopt();
        let holders = self.holders(listing);
        self.kubelet.set_holders(holders);
        findings
    }

    /// Takes what kubelet lists for one container.
    fn take(&mut self, key: &Key, item: &ContainerResources, list: &Answered<'_>, findings: &mut Comparison) {
        let newer = |claim: &Claim| list.question.is_older_than(claim.call());
        let own = self.claimed(key);
        let assumed = item.ids.iter().find_map(|(resource, ids)| self.assumed(key, resource, ids, list));
        // a call after the question makes the answer stale for these ids
        if own.is_some_and(newer) || assumed.as_ref().and_then(|key| self.claimed(key)).is_some_and(newer) {
            return;
        }
        let known = own.is_some();
        let certain = own.is_some_and(|own| own.was_confirmed() && own.core() == item.ids.get(&Resource::Core));
        // ids of shares by count name their GPUs: the container that has them has these
        let follows = item.ids.keys().any(|resource| Resource::VCUDA.contains(resource));
        if let Some(assumed) = assumed.as_ref().filter(|_| follows) {
            // GPUs follow the answer for core; where there was none, they follow the ids that were preferred
            let core = item.ids.get(&Resource::Core);
            let answer = |key: &Key| self.claimed(key).and_then(Claim::core);
            let led = answer(assumed).is_none_or(|ids| Some(ids) == core);
            if led && answer(key).is_none_or(|ids| Some(ids) != core) && self.exchange(assumed, key) {
                findings.swaps.push((assumed.clone(), key.clone()));
            }
        }
        for resource in self.requested(key).map(resources).unwrap_or_default() {
            self.take_part(key, &resource, item.ids.get(&resource), list);
        }
        // kubelet's earlier list outweighs a later answer, should kubelet give ids twice
        for (resource, ids) in item.ids.iter().filter(|(resource, _)| !(certain && **resource == Resource::Core)) {
            if self.believe(key, resource, ids) && matches!(resource, Resource::Counted(_)) {
                findings.moved.push(key.clone());
            }
        }
        if !known && assumed.is_none() {
            findings.adopted.push(key.clone());
        }
        self.take_back(key, item, list.question);
        let Some(entry) = self.pods.get_mut(&key.pod) else { return };
        entry.answer_lost = false;
        for (name, claim, init) in entry.claims_mut() {
            if *name == key.container {
                claim.happens(Event::Listed);
            } else if init {
                claim.happens(Event::LaterListed);
            }
        }
    }

    /// Ids that kubelet lists for this pod are not those of another pod's ordinary init container: that match was
    /// wrong.
    fn take_back(&mut self, key: &Key, item: &ContainerResources, question: Question) {
        for entry in self.pods.values_mut().filter(|entry| entry.pod.uid != key.pod) {
            entry.retain_claims(|claim, init| {
                let held = |(resource, ids): (&Resource, &Ids)| claim.ids(resource) == Some(ids);
                !(init && question.noted(claim.call()) && item.ids.iter().any(held))
            });
        }
    }

    /// The claim of another container on these ids that is not true. Init containers lend their ids to those after
    /// them, so their claims are left out. Where kubelet lists both containers with the ids, having given them
    /// twice, both have them.
    fn assumed(&self, key: &Key, resource: &Resource, ids: &Ids, list: &Answered<'_>) -> Option<Key> {
        let same = |claim: &Claim| !claim.released() && claim.ids(resource) == Some(ids);
        let has = |other: &Key| list.held.get(other).is_some_and(|held| held.ids.get(resource) == Some(ids));
        self.pods.values().find_map(|entry| {
            let others = entry.claims.iter().filter(|(name, claim)| same(claim) && !entry.is_init(name));
            others.map(|(name, _)| entry.key(name)).find(|other| other != key && !has(other))
        })
    }

    /// This container alone has these ids of this resource.
    fn take_part(&mut self, key: &Key, resource: &Resource, ids: Option<&Ids>, list: &Answered<'_>) {
        if let Some(other) = ids.and_then(|ids| self.assumed(key, resource, ids, list))
            && let Some(entry) = self.pods.get_mut(&other.pod)
        {
            entry.answer_lost = true;
            if let Some(claim) = entry.claims.get_mut(&other.container) {
                claim.set(resource, None);
                if claim.is_empty() {
                    entry.claims.remove(&other.container);
                }
            }
        }
        let Some(entry) = self.pods.get_mut(&key.pod) else { return };
        let claim = entry.claims.entry(key.container.clone()).or_default();
        // ids that kubelet does not list may be the latest answer, on its way; otherwise they were never given
        if ids.is_some() || list.question.noted(claim.call()) {
            claim.set(resource, ids.cloned());
        }
    }

    /// A claim that kubelet had to list by now and does not was never given: its pod was rejected, or kubelet ended
    /// before it noted the answer, or before it wrote it into its checkpoint, which it does container by container.
    /// Where kubelet will ask again, the container waits again. One exception: while a pod's turn has not come
    /// since kubelet's start, nothing of it is listed although it has what it had.
    fn void(&mut self, listing: &Listing, question: Question) {
        for entry in self.pods.values_mut() {
            let here = listing.pods.contains(&entry.pod.reference);
            entry.retain_claims(|claim, init| {
                claim.listed() || (claim.was_confirmed() && (!here || init)) || !question.noted(claim.call())
            });
        }
        let noted = question.noted(self.kubelet.calls());
        self.open.take_if(|open| {
            self.pods.get(&*open).is_none_or(|entry| noted && !listing.pods.contains(&entry.pod.reference))
        });
    }

    /// PreStartContainer named these ids: their container is about to run. Returns whether it is known. An init
    /// container and one after it may both have the ids: then it is one of these.
    pub fn starts(&mut self, ids: &Ids) -> bool {
        let mut known = false;
        for entry in self.pods.values_mut() {
            for (_, claim, init) in entry.claims_mut().filter(|(_, claim, _)| claim.names(ids)) {
                known = true;
                // only ordinary init containers have no better evidence
                if init {
                    claim.happens(Event::Started);
                }
            }
        }
        known
    }

    /// Whether some claim still waits for confirmation by kubelet's list. Ordinary init containers never get one.
    pub fn unconfirmed(&self) -> bool {
        self.pods.values().any(|entry| {
            let mut claims = entry.claims.iter().filter(|(name, claim)| !claim.released() && !entry.is_init(name));
            claims.any(|(_, claim)| !entry.believed(claim))
        })
    }
}
