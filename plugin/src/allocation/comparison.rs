//! kubelet's list against what was assumed: wrong assumptions and records are corrected.

use std::collections::BTreeMap;

use kerf::ids::{PodRef, PodUid};

use crate::allocation::allocations::Allocations;
use crate::allocation::claim::{Claim, Event};
use crate::allocation::entry::{Noted, resources};
use crate::allocation::kubelet_list::Question;
use crate::allocation::listing::{ContainerResources, Listing};
use crate::allocation::pod::Key;
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

impl Allocations {
    /// Compares with kubelet's complete list. A list older than one that was already taken changes nothing.
    pub fn reconcile(&mut self, listing: &Listing, question: Question) -> Comparison {
        let mut findings = Comparison::default();
        let asking = self.pods.asking().collect();
        let taken = self.kubelet.take(listing, &self.pods.over(), &asking, question);
        let Some(listing) = &taken else { return findings };
        for entry in self.pods.values_mut() {
            let here = listing.pods.contains(&entry.pod.reference);
            let inits = entry.init_claims();
            for (name, claim) in entry.claims.iter_mut().filter(|(_, claim)| question.noted(claim.call())) {
                claim.happens(if here && inits.contains(name) { Event::PodListed } else { Event::NotListed });
            }
        }
        let mut held: BTreeMap<Key, &ContainerResources> = BTreeMap::new();
        for item in listing.held.iter().filter(|item| !item.ids.is_empty()) {
            let key = self.pods.by_reference(&item.pod).map(|pod| Key { pod, container: item.container.clone() });
            match key.filter(|key| self.requested(key)) {
                Some(key) => drop(held.insert(key, item)),
                None => findings.unknown.push(item.pod.clone()),
            }
        }
        for (key, item) in &held {
            self.take(key, item, &held, question, &mut findings);
        }
        self.void(listing, question);
        self.adopt();
        let holders = self.holders(listing);
        self.kubelet.set_holders(holders);
        findings
    }

    fn requested(&self, key: &Key) -> bool {
        self.pods.get(&key.pod).is_some_and(|entry| entry.position(&key.container).is_some())
    }

    /// The resources that a container requests.
    fn asked(&self, key: &Key) -> Vec<Resource> {
        let container = self
            .pods
            .get(&key.pod)
            .and_then(|entry| entry.pod.request.containers.get(entry.position(&key.container)?));
        container.map(resources).unwrap_or_default()
    }

    /// Takes what kubelet lists for one container.
    fn take(
        &mut self,
        key: &Key,
        item: &ContainerResources,
        listed: &BTreeMap<Key, &ContainerResources>,
        question: Question,
        findings: &mut Comparison,
    ) {
        let newer = |claim: &Claim| question.is_older_than(claim.call());
        let own = self.pods.get(&key.pod).and_then(|entry| entry.claim(&key.container));
        let assumed = item.ids.iter().find_map(|(resource, ids)| self.assumed(key, resource, ids, listed));
        let stale = |key: &Key| {
            let claim = self.pods.get(&key.pod).and_then(|entry| entry.claim(&key.container));
            claim.is_some_and(newer)
        };
        // a call after the question makes the answer stale for these ids
        if own.is_some_and(newer) || assumed.as_ref().is_some_and(stale) {
            return;
        }
        let known = own.is_some();
        let certain = own.is_some_and(|own| own.was_confirmed() && own.core() == item.ids.get(&Resource::Core));
        // ids of shares by count name their GPUs: the container that has them has these
        let follows = item.ids.keys().any(|resource| Resource::VCUDA.contains(resource));
        if let Some(assumed) = assumed.as_ref().filter(|_| follows) {
            // GPUs follow the answer for core; where there was none, they follow the ids that were preferred
            let answered =
                |key: &Key| self.pods.get(&key.pod).and_then(|entry| entry.claim(&key.container)?.core()).cloned();
            let (theirs, ours) = (answered(assumed), answered(key));
            let core = item.ids.get(&Resource::Core);
            let led = theirs.is_none_or(|ids| Some(&ids) == core);
            if led && ours.is_none_or(|ids| Some(&ids) != core) && self.exchange(assumed, key) {
                findings.swaps.push((assumed.clone(), key.clone()));
            }
        }
        for resource in self.asked(key) {
            self.take_part(key, &resource, item.ids.get(&resource), listed, question);
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
        self.take_back(key, item, question);
        let Some(entry) = self.pods.get_mut(&key.pod) else { return };
        entry.noted = Noted::All;
        let inits = entry.init_claims();
        for (name, claim) in &mut entry.claims {
            if *name == key.container {
                claim.happens(Event::Listed);
            } else if inits.contains(name) {
                claim.happens(Event::LaterListed);
            }
        }
    }

    /// Ids that kubelet lists for this pod are not those of another pod's ordinary init container: that match was
    /// wrong.
    fn take_back(&mut self, key: &Key, item: &ContainerResources, question: Question) {
        for entry in self.pods.values_mut().filter(|entry| entry.pod.uid != key.pod) {
            let inits = entry.init_claims();
            let before = entry.claims.len();
            entry.claims.retain(|name, claim| {
                let held = |(resource, ids): (&Resource, &Ids)| claim.ids(resource) == Some(ids);
                !(inits.contains(name) && question.noted(claim.call()) && item.ids.iter().any(held))
            });
            if entry.claims.len() < before {
                entry.noted = Noted::NotAll;
            }
        }
    }

    /// The claim of another container on these ids that is not true. Init containers lend their ids to those after
    /// them, so their claims are left out. Where kubelet lists both containers with the ids, having given them
    /// twice, both have them.
    fn assumed(
        &self,
        key: &Key,
        resource: &Resource,
        ids: &Ids,
        listed: &BTreeMap<Key, &ContainerResources>,
    ) -> Option<Key> {
        self.pods.values().find_map(|entry| {
            let (name, _) = entry.claims.iter().find(|(name, claim)| {
                let other = Key { pod: entry.pod.uid.clone(), container: (*name).clone() };
                let has = || listed.get(&other).is_some_and(|held| held.ids.get(resource) == Some(ids));
                other != *key
                    && !entry.is_init(name)
                    && !claim.released()
                    && claim.ids(resource) == Some(ids)
                    && !has()
            })?;
            Some(Key { pod: entry.pod.uid.clone(), container: name.clone() })
        })
    }

    /// This container alone has these ids of this resource.
    fn take_part(
        &mut self,
        key: &Key,
        resource: &Resource,
        ids: Option<&Ids>,
        listed: &BTreeMap<Key, &ContainerResources>,
        question: Question,
    ) {
        if let Some(other) = ids.and_then(|ids| self.assumed(key, resource, ids, listed))
            && let Some(entry) = self.pods.get_mut(&other.pod)
        {
            entry.noted = Noted::NotAll;
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
        if ids.is_some() || question.noted(claim.call()) {
            claim.set(resource, ids.cloned());
        }
    }

    /// A claim that kubelet had to list by now and does not was never given: its pod was rejected, or kubelet ended
    /// before it noted the answer, or before it wrote it into its checkpoint, which it does container by container.
    /// Where kubelet will ask again, the container waits again. One exception: while a pod's turn has not come
    /// since kubelet's start, nothing of it is listed although it has what it had.
    fn void(&mut self, listing: &Listing, question: Question) {
        for entry in self.pods.values_mut() {
            let before = entry.claims.len();
            let here = listing.pods.contains(&entry.pod.reference);
            let inits = entry.init_claims();
            entry.claims.retain(|name, claim| {
                let kept = claim.was_confirmed() && (!here || inits.contains(name));
                claim.listed() || kept || !question.noted(claim.call())
            });
            if entry.claims.len() < before {
                entry.noted = Noted::NotAll;
            }
        }
        let gone = |uid: &PodUid| {
            let entry = self.pods.get(uid);
            entry.is_none_or(|entry| {
                !listing.pods.contains(&entry.pod.reference) && question.noted(self.kubelet.calls())
            })
        };
        if self.open.as_ref().is_some_and(gone) {
            self.open = None;
        }
    }

    /// PreStartContainer named these ids: their container is about to run. Returns whether it is known. An init
    /// container and one after it may both have the ids: then it is one of these.
    pub fn starts(&mut self, ids: &Ids) -> bool {
        let mut known = false;
        for entry in self.pods.values_mut() {
            let inits = entry.init_claims();
            for (name, claim) in entry.claims.iter_mut().filter(|(_, claim)| claim.names(ids)) {
                known = true;
                // only ordinary init containers have no better evidence
                if inits.contains(name) {
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
