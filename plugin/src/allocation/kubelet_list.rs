//! kubelet says who holds which ids. Wrong assumptions are mended, records corrected.
//!
//! What kubelet's list means, in kubelet's own order of things:
//!
//! * a pod is put on it before its first container is served, and taken off it when it was rejected or has ended;
//! * after a restart of kubelet, each pod is put on it anew when its turn comes, with what the checkpoint says;
//! * the ids of a call are on it once kubelet has our answer, so before it makes another call;
//! * ordinary init containers are never on it.

use std::collections::{BTreeMap, BTreeSet};

use kerf::annotation::isolation::{self, Levels};
use kerf::annotation::{self, Keys};
use kerf::ids::{ContainerName, PodRef, PodUid};
use kerf::plan::Placement;
use kerf::request::{Ask, ContainerRequest};

use crate::allocation::entry::{Claim, Entry, lends, resources};
use crate::allocation::{Allocations, Key};
use crate::device::ids::{Ids, Resource};

/// kubelet's list of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// All pods, also those that hold nothing (yet).
    pub pods: BTreeSet<PodRef>,
    /// Containers that hold something.
    pub held: Vec<ContainerResources>,
    /// A pod that holds cards of this node under another resource domain.
    pub other_domain: Option<OtherDomain>,
}

/// A pod that was given cards of this node under another resource domain than this process serves: what it holds is
/// counted by nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pod {pod} holds cards of this node under {resource}: the node takes no pods until those of the other resource domain have ended; drain it first"
)]
pub struct OtherDomain {
    /// The pod.
    pub pod: PodRef,
    /// The resource of its domain.
    pub resource: String,
}

/// What kubelet says that one container holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerResources {
    /// The pod's name; kubelet does not tell its uid.
    pub pod: PodRef,
    /// The container.
    pub container: ContainerName,
    /// Its ids by resource; none is empty.
    pub ids: BTreeMap<Resource, Ids>,
}

/// When a list was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    number: u64,
    /// The last Allocate before it.
    calls: u64,
    /// The last Allocate of which kubelet surely had the answer.
    noted: u64,
    within: bool,
}

/// What a comparison with kubelet's list has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Assumptions that were wrong: the container assumed, and the one that really has the ids.
    pub swaps: Vec<(Key, Key)>,
    /// Allocations that were found again after a restart of the plugin.
    pub adopted: Vec<Key>,
    /// Containers whose ids name other cards than were recorded.
    pub moved: Vec<Key>,
    /// Containers of pods that are not known here (yet), or have no believable placement.
    pub unknown: Vec<PodRef>,
}

/// What must be written on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// The pod; a write to another life of the same name is wrong.
    pub uid: PodUid,
    /// Its name.
    pub reference: PodRef,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Allocations {
    /// To be called before kubelet's list is asked for. `within` a call of kubelet, it has noted all answers
    /// before; at other times the latest may be on its way to it.
    pub fn question(&mut self, within: bool) -> Question {
        self.questions += 1;
        let noted = if within { self.calls } else { self.calls.saturating_sub(1) };
        Question { number: self.questions, calls: self.calls, noted, within }
    }

    /// Compares with kubelet's complete list. A list older than one that was taken already changes nothing.
    pub fn reconcile(&mut self, listing: &Listing, question: Question) -> Comparison {
        let mut findings = Comparison::default();
        if question.number <= self.taken {
            return findings;
        }
        self.taken = question.number;
        if question.within {
            self.offered = None;
        }
        self.fresh = (question.within || self.fresh) && question.calls == self.calls;
        let all = &listing.pods;
        let listing = &self.without_ended(listing);
        self.listed.get_or_insert_default().take(listing, question.number);
        let core = |held: &ContainerResources| Some((held.pod.clone(), held.ids.get(&Resource::Core)?.clone()));
        self.listed_core = listing.held.iter().filter_map(core).collect();
        self.other_domain.clone_from(&listing.other_domain);
        let before = self.departed.len();
        // a name may be another pod's by now
        let alive: BTreeSet<&PodRef> = self.pods.values().map(|entry| &entry.pod.reference).collect();
        self.departed.retain(|pod| all.contains(pod) && !alive.contains(pod));
        self.struck |= self.departed.len() < before;
        for entry in self.pods.values_mut() {
            let here = listing.pods.contains(&entry.pod.reference);
            let lent = entry.lent_claims();
            for (name, claim) in entry.claims.iter_mut().filter(|(_, claim)| claim.order <= question.noted) {
                claim.seen = here && lent.contains(name);
            }
        }
        let mut held: BTreeMap<Key, &ContainerResources> = BTreeMap::new();
        for item in listing.held.iter().filter(|item| !item.ids.is_empty()) {
            let key = self.by_reference(&item.pod).map(|pod| Key { pod, container: item.container.clone() });
            match key.filter(|key| self.requested(key)) {
                Some(key) => drop(held.insert(key, item)),
                None => findings.unknown.push(item.pod.clone()),
            }
        }
        for (key, item) in &held {
            self.take(key, item, &held, question, &mut findings);
        }
        self.void(listing, question);
        self.write_down();
        self.listed_holders = self.strays_of(listing);
        findings
    }

    /// The list but for pods that the API server shows as ended: kubelet frees what they held before it asks for more.
    fn without_ended(&self, listing: &Listing) -> Listing {
        let alive: BTreeSet<&PodRef> = self.pods.values().map(|entry| &entry.pod.reference).collect();
        let alive: BTreeSet<&PodRef> = self.others.values().map(|other| &other.reference).chain(alive).collect();
        let over: BTreeSet<&PodRef> = self.ended.values().filter(|pod| !alive.contains(pod)).collect();
        let mut listing = listing.clone();
        listing.pods.retain(|pod| !over.contains(pod));
        listing.held.retain(|held| !over.contains(&held.pod));
        listing
    }

    fn requested(&self, key: &Key) -> bool {
        self.pods.get(&key.pod).is_some_and(|entry| entry.position(&key.container).is_some())
    }

    /// What a container asks kubelet for.
    fn asked(&self, key: &Key) -> Vec<Resource> {
        let container = self
            .pods
            .get(&key.pod)
            .and_then(|entry| entry.pod.request.containers.get(entry.position(&key.container)?));
        container.map(resources).unwrap_or_default()
    }

    /// Takes what kubelet says of one container.
    fn take(
        &mut self,
        key: &Key,
        item: &ContainerResources,
        listed: &BTreeMap<Key, &ContainerResources>,
        question: Question,
        findings: &mut Comparison,
    ) {
        let newer = |claim: &Claim| claim.order > question.calls;
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
        let certain = own.is_some_and(|own| own.confirmed && own.core() == item.ids.get(&Resource::Core));
        // ids of shares by count name their cards: whoever has them has these
        let follows = item.ids.keys().any(|resource| Resource::VCUDA.contains(resource));
        if let Some(assumed) = assumed.as_ref().filter(|_| follows) {
            // cards follow the answer for core; before there was one, they follow the ids that were preferred
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
        // what kubelet has said before is not doubted for what was answered since, should it give ids twice
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
        entry.doubtful = false;
        let lent = entry.lent_claims();
        for (name, claim) in &mut entry.claims {
            if *name == key.container || lent.contains(name) {
                claim.seen = true;
                claim.confirmed = true;
                claim.released &= *name != key.container;
            }
        }
    }

    /// What kubelet lists for this pod no ordinary init container of another one has: it was taken for one of its own.
    fn take_back(&mut self, key: &Key, item: &ContainerResources, question: Question) {
        for entry in self.pods.values_mut().filter(|entry| entry.pod.uid != key.pod) {
            let lent = entry.lent_claims();
            let before = entry.claims.len();
            entry.claims.retain(|name, claim| {
                let held = |(resource, ids): (&Resource, &Ids)| claim.ids(resource) == Some(ids);
                !(lent.contains(name) && claim.order <= question.noted && item.ids.iter().any(held))
            });
            entry.doubtful |= entry.claims.len() < before;
        }
    }

    /// The claim of another container on these ids that is not true. Init containers lend theirs to those after them, so
    /// theirs are not meant; and whom kubelet lists with them as well, having given them twice, has them as well.
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
                other != *key && !entry.lent(name) && !claim.released && claim.ids(resource) == Some(ids) && !has()
            })?;
            Some(Key { pod: entry.pod.uid.clone(), container: name.clone() })
        })
    }

    /// The container has these ids of this resource, and nobody else.
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
            entry.doubtful = true;
            if let Some(claim) = entry.claims.get_mut(&other.container) {
                claim.set(resource, None);
                if claim.is_empty() {
                    entry.claims.remove(&other.container);
                }
            }
        }
        let Some(entry) = self.pods.get_mut(&key.pod) else { return };
        let claim = entry.claims.entry(key.container.clone()).or_default();
        // what kubelet does not list may be the latest answer, on its way; otherwise it was never given
        if ids.is_some() || claim.order <= question.noted {
            claim.set(resource, ids.cloned());
        }
    }

    /// What kubelet had to list by now and does not was never given: its pod was rejected, or kubelet ended before
    /// it noted the answer, or before it wrote it into its checkpoint, which it does container by container. Where it
    /// will ask again, the container waits again. Only of a pod whose turn has not come since kubelet's start is
    /// nothing listed although it has what it had.
    fn void(&mut self, listing: &Listing, question: Question) {
        for entry in self.pods.values_mut() {
            let before = entry.claims.len();
            let here = listing.pods.contains(&entry.pod.reference);
            let lent = entry.lent_claims();
            entry.claims.retain(|name, claim| {
                let kept = claim.confirmed && (!here || lent.contains(name));
                claim.seen || kept || claim.order > question.noted
            });
            entry.doubtful |= entry.claims.len() < before;
        }
        let gone = |uid: &PodUid| {
            let entry = self.pods.get(uid);
            entry.is_none_or(|entry| !listing.pods.contains(&entry.pod.reference) && question.noted >= self.calls)
        };
        if self.open.as_ref().is_some_and(gone) {
            self.open = None;
        }
    }

    /// PreStartContainer named these ids: their container is about to run. Whether it is known. An init container and one
    /// after it may both have them: then it is one of these.
    pub fn starts(&mut self, ids: &Ids) -> bool {
        let mut known = false;
        for entry in self.pods.values_mut() {
            let lent = entry.lent_claims();
            for (name, claim) in entry.claims.iter_mut().filter(|(_, claim)| claim.names(ids)) {
                known = true;
                // only an ordinary init container has no better witness
                claim.confirmed |= lent.contains(name);
            }
        }
        known
    }

    /// Whether some claim still lacks kubelet's word.
    pub fn unconfirmed(&self) -> bool {
        self.pods.values().any(|entry| {
            let claims = entry.claims.iter().filter(|(name, claim)| !claim.released && !entry.lent(name));
            claims.map(|(_, claim)| claim).any(|claim| !claim.confirmed || !(claim.seen || entry.pod.confirmed))
        })
    }

    /// What enforces the shares of a pod's containers: of one that an earlier life served and left no word on, what the
    /// pod's record says. `None` while one is being prepared.
    fn levels_of(&self, entry: &Entry) -> Option<Levels> {
        let lasting = entry.pod.request.containers.iter().any(|container| !lends(container.kind));
        let mut levels = Levels::new();
        // nothing is promised of shares by count, and nothing is said
        let held = |c: &&ContainerRequest| (!lasting || !lends(c.kind)) && !matches!(c.ask, Ask::Counted(_));
        for container in entry.pod.request.containers.iter().filter(held) {
            let core = entry.claim(&container.name).and_then(Claim::core);
            let shown = || entry.pod.isolated.as_ref()?.get(&container.name).copied();
            let level = match core.and_then(|core| self.level(entry, &container.name, core)) {
                Some(level) => Some(level),
                None if matches!(container.ask, Ask::Whole { .. }) => shown(),
                None if core.is_some_and(|core| self.answers.iter().any(|given| given.ids == *core)) => {
                    return None;
                }
                None => Some(shown().unwrap_or_default()),
            };
            levels.extend(level.map(|level| (container.name.clone(), level)));
        }
        Some(levels)
    }

    /// What the API server shows otherwise than it is.
    ///
    /// A pod all of whose containers are confirmed is marked as such. A placement is written anew where it was
    /// exchanged, and where somebody changed it after the pod got its cards.
    pub fn corrections(&self, keys: &Keys) -> Vec<Correction> {
        self.pods
            .values()
            .filter_map(|entry| {
                let placement = entry.placement.as_ref()?;
                let confirmed = entry.complete();
                let truth = self.resolve(&placement.plan);
                let shown = entry.pod.record.as_ref().map(|record| self.resolve(&record.plan));
                let rewrite = (entry.exchanged || confirmed) && shown.as_ref() != Some(&truth);
                let mut annotations = BTreeMap::new();
                if rewrite {
                    annotations = annotation::write(&Placement { plan: truth, ..placement.clone() }, keys);
                    annotations.insert(keys.gpu_assigned.clone(), entry.pod.confirmed.to_string());
                }
                if confirmed && (rewrite || !entry.pod.confirmed) {
                    annotations.insert(keys.gpu_assigned.clone(), "true".into());
                }
                if let Some(levels) = self.levels_of(entry)
                    && confirmed
                    && !levels.is_empty()
                    && entry.pod.isolated.as_ref() != Some(&levels)
                {
                    annotations.insert(keys.isolated.clone(), isolation::encode(&levels));
                }
                (!annotations.is_empty()).then(|| Correction {
                    uid: entry.pod.uid.clone(),
                    reference: entry.pod.reference.clone(),
                    annotations,
                })
            })
            .collect()
    }
}
