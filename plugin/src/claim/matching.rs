//! Allocate: which waiting container is this call for.

use std::cmp::Reverse;

use kerf::ids::{ContainerName, DeviceId, PodUid};
use kerf::plan::Grant;

use super::{Answer, Claims, Entry, Key, Refusal, Stage, amount, lends};
use crate::ids::{Ids, Resource};

/// How much the caller has done to be sure of what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// What the watch has shown so far.
    Known,
    /// The API server and kubelet have just been asked: what is missing now will not appear.
    Asked,
}

impl Claims {
    /// Matches an Allocate, and claims.
    ///
    /// In this order: the pod in whose middle kubelet is; the same call again; a container whose other resource
    /// was taken for a twin; any waiting pod, the placed card of which the ids name first, then by time of
    /// placement. With [`Effort::Asked`], where nobody waits, claims that kubelet does not list are dropped first:
    /// the calls were for twins that have failed since.
    ///
    /// # Errors
    /// [`Refusal`]. Before it is final, the caller refreshes what it knows and asks again with
    /// [`Effort::Asked`].
    pub fn allocate(&mut self, resource: Resource, ids: Ids, effort: Effort) -> Result<Answer, Refusal> {
        if let Some(key) = self.repeated(resource, &ids, true) {
            self.begin_again(&key, resource);
            return self.answer(&key, true);
        }
        self.void(resource, &ids);
        let units = ids.len();
        if let Some(key) = self.open_awaits(resource, units) {
            return self.claim(key, resource, ids);
        }
        if let Some(key) = self.reseat(resource, units) {
            return self.claim(key, resource, ids);
        }
        let mut refusal = Refusal::NobodyWaits { resource: resource.as_str(), units };
        let mut waiting = self.waiting(resource, units, Some(&ids));
        if waiting.is_empty() && effort == Effort::Asked {
            self.drop_unlisted();
            waiting = self.waiting(resource, units, Some(&ids));
        }
        for key in waiting {
            let room = self.pods.get(&key.pod).map_or(Ok(()), |entry| self.room(entry, &key.container));
            match room {
                Ok(()) => return self.claim(key, resource, ids),
                Err(other) if matches!(refusal, Refusal::NobodyWaits { .. }) => refusal = other,
                Err(_) => {}
            }
        }
        match self.repeated(resource, &ids, false) {
            Some(key) => self.answer(&key, true),
            None => Err(refusal),
        }
    }

    /// The container that these very ids were claimed for. `strictly`: only where nothing else can be meant,
    /// that is, by the last call for this resource and not yet listed by kubelet. A container after an ordinary
    /// init container is given that one's ids again, and is not a repetition.
    fn repeated(&self, resource: Resource, ids: &Ids, strictly: bool) -> Option<Key> {
        let same = |key: &Key| {
            let entry = self.pods.get(&key.pod).filter(|entry| entry.over.is_none())?;
            let claim = entry.claim(&key.container)?;
            (!claim.released && claim.ids(resource) == Some(ids)).then_some((entry, claim))
        };
        if !strictly {
            let found = self.pods.values().filter(|entry| entry.over.is_none()).find_map(|entry| {
                let (name, _) =
                    entry.claims.iter().find(|(_, claim)| !claim.released && claim.ids(resource) == Some(ids))?;
                Some(Key { pod: entry.pod.uid.clone(), container: name.clone() })
            });
            return found;
        }
        let key = self.last.get(&resource)?;
        let (entry, claim) = same(key)?;
        let lent = entry.grant(&key.container).is_some_and(|grant| lends(grant.kind))
            && entry.awaits(resource, ids.len()).is_some();
        (!claim.confirmed && !lent).then(|| key.clone())
    }

    /// The call that came again may be a twin's, after the first caller failed: what that one took later is void.
    fn begin_again(&mut self, key: &Key, resource: Resource) {
        let Some(entry) = self.pods.get_mut(&key.pod).filter(|entry| entry.unresolved()) else { return };
        let before = entry.pod.request.containers.iter().take_while(|container| container.name != key.container);
        let before: Vec<ContainerName> = before.map(|container| container.name.clone()).collect();
        entry.claims.retain(|name, _| *name == key.container || before.contains(name));
        if let Some(claim) = entry.claims.get_mut(&key.container) {
            claim.set(resource.other(), None);
        }
        self.open = entry.next().is_some().then(|| key.pod.clone());
    }

    pub(super) fn open_awaits(&self, resource: Resource, units: u64) -> Option<Key> {
        let uid = self.open.as_ref()?;
        let container = self.pods.get(uid)?.awaits(resource, units)?;
        Some(Key { pod: uid.clone(), container: container.name.clone() })
    }

    /// Waiting containers that need this amount next, best first. `ids`: what kubelet chose, if it has.
    pub(super) fn waiting(&self, resource: Resource, units: u64, ids: Option<&Ids>) -> Vec<Key> {
        let named = ids.map(Ids::cards).unwrap_or_default();
        let mut found: Vec<_> = self
            .pods
            .values()
            .filter_map(|entry| {
                let name = &entry.awaits(resource, units)?.name;
                let time = entry.placement.as_ref().map_or(0, |placement| placement.time);
                // pods that are being deleted, were passed over, or say of themselves that they are done
                let doubtful = entry.doubtful || entry.pod.stage != Stage::Live || entry.pod.confirmed;
                // a container half served comes with its second resource next
                let begun = entry.claim(name).is_some();
                let elsewhere = !named.is_empty() && !self.on_cards(entry, name, &named);
                let key = Key { pod: entry.pod.uid.clone(), container: name.clone() };
                Some(((doubtful, Reverse(begun), elsewhere, time), key))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, key)| key).collect()
    }

    /// Whether the ids name exactly the cards that the container was placed on.
    fn on_cards(&self, entry: &Entry, name: &ContainerName, named: &std::collections::BTreeMap<&str, u64>) -> bool {
        entry.grant(name).is_some_and(|grant| {
            grant.slices.len() == named.len()
                && grant
                    .devices()
                    .all(|device| self.card(device).is_some_and(|card| named.contains_key(card.id.as_str())))
        })
    }

    /// Drops claims that kubelet has just not listed, or whose ids it has given to others: the calls were for
    /// pods that have failed since. What is dropped in truth was never given, so its container waits again.
    fn drop_unlisted(&mut self) {
        for entry in self.pods.values_mut().filter(|entry| entry.over.is_none()) {
            let before = entry.claims.len();
            entry.claims.retain(|_, claim| claim.seen && !claim.released);
            entry.doubtful |= entry.claims.len() < before;
        }
        self.open = None;
    }

    /// kubelet's call does not fit the container that it is in the middle of. If one resource of that container
    /// was taken for a twin that needs both amounts, the half goes to the twin.
    fn reseat(&mut self, resource: Resource, units: u64) -> Option<Key> {
        let uid = self.open.clone()?;
        let entry = self.pods.get(&uid)?;
        let next = entry.next()?.clone();
        let other = resource.other();
        let half = entry.claim(&next.name)?.ids(other)?.clone();
        let twin = self.pods.values().find(|candidate| {
            candidate.pod.uid != uid
                && candidate.awaits(resource, units).is_some_and(|container| {
                    candidate.claim(&container.name).is_none() && amount(container, other) == half.len()
                })
        })?;
        let name = twin.awaits(resource, units)?.name.clone();
        let key = Key { pod: twin.pod.uid.clone(), container: name };
        let calls = self.calls;
        let former = self.pods.get_mut(&uid)?;
        former.claims.remove(&next.name);
        former.doubtful = true;
        let claim = self.pods.get_mut(&key.pod)?.claims.entry(key.container.clone()).or_default();
        claim.set(other, Some(half));
        claim.order = calls;
        if other == Resource::Core {
            // the answer named the former pod's cards: they are the twin's now, whatever the records say
            self.swap_cards(&Key { pod: uid, container: next.name }, &key);
        }
        self.last.insert(other, key.clone());
        Some(key)
    }

    /// Two containers change cards; each keeps its own amounts.
    pub(super) fn swap_cards(&mut self, a: &Key, b: &Key) {
        let grant = |claims: &Self, key: &Key| claims.pods.get(&key.pod)?.grant(&key.container).cloned();
        let (Some(of_a), Some(of_b)) = (grant(self, a), grant(self, b)) else { return };
        for (key, own, other) in [(a, &of_a, &of_b), (b, &of_b, &of_a)] {
            if let Some(entry) = self.pods.get_mut(&key.pod) {
                entry.exchanged = true;
                if let Some(grant) = entry.grant_mut(&key.container) {
                    *grant = moved(own, other);
                }
            }
        }
    }

    fn claim(&mut self, key: Key, resource: Resource, ids: Ids) -> Result<Answer, Refusal> {
        self.calls += 1;
        let calls = self.calls;
        self.release_others(&key.pod, resource, &ids);
        if let Some(open) = self.open.take_if(|open| *open != key.pod)
            && let Some(entry) = self.pods.get_mut(&open)
        {
            entry.doubtful |= entry.next().is_some();
        }
        if let Some(entry) = self.pods.get_mut(&key.pod) {
            let claim = entry.claims.entry(key.container.clone()).or_default();
            if claim.ids(resource).is_some() {
                // claimed anew: what was known of the former call is void
                *claim = super::Claim::default();
            }
            claim.set(resource, Some(ids.clone()));
            claim.order = calls;
            claim.released = false;
            claim.seen = false;
            entry.doubtful = false;
            self.open = entry.next().is_some().then(|| key.pod.clone());
        }
        self.last.insert(resource, key.clone());
        let answer = self.answer(&key, false)?;
        if resource == Resource::Core {
            self.answers.insert(ids, (answer.grant.slices.clone(), calls));
        }
        Ok(answer)
    }

    /// kubelet gives ids only when they are free. Where they were claimed for a pod of which kubelet has listed
    /// nothing yet, the calls were for a twin that has failed since, and the pod waits still.
    fn void(&mut self, resource: Resource, ids: &Ids) {
        let open = self.open.clone();
        for entry in self.pods.values_mut().filter(|entry| entry.unresolved() && entry.over.is_none()) {
            let amid = open.as_ref() == Some(&entry.pod.uid);
            let taken = entry.claims.iter().any(|(name, claim)| {
                let lent = amid && entry.grant(name).is_some_and(|grant| lends(grant.kind));
                !lent && claim.ids(resource).is_some_and(|held| held.intersects(ids))
            });
            if taken {
                entry.claims.clear();
                entry.doubtful = true;
                self.open.take_if(|open| *open == entry.pod.uid);
            }
        }
    }

    /// kubelet gives ids only when it believes them free: claims of other pods on them are over in its eyes.
    fn release_others(&mut self, pod: &PodUid, resource: Resource, ids: &Ids) {
        for entry in self.pods.values_mut().filter(|entry| entry.pod.uid != *pod) {
            for claim in entry.claims.values_mut() {
                claim.released |= claim.ids(resource).is_some_and(|held| held.intersects(ids));
            }
        }
    }

    fn answer(&self, key: &Key, repeated: bool) -> Result<Answer, Refusal> {
        let found = self.pods.get(&key.pod).and_then(|entry| {
            let placement = entry.placement.as_ref()?;
            let grant = self.resolve(&placement.plan).grants.into_iter().find(|g| g.container == key.container)?;
            Some(Answer {
                key: key.clone(),
                reference: entry.pod.reference.clone(),
                grant,
                limit: placement.limit,
                repeated,
            })
        });
        found.ok_or(Refusal::NobodyWaits { resource: Resource::Core.as_str(), units: 0 })
    }

    /// The container that claimed these ids, in whatever pod.
    pub fn holder(&self, ids: &Ids) -> Option<Key> {
        self.pods.values().find_map(|entry| {
            let (name, _) = entry
                .claims
                .iter()
                .find(|(_, claim)| Resource::ALL.iter().any(|resource| claim.ids(*resource) == Some(ids)))?;
            Some(Key { pod: entry.pod.uid.clone(), container: name.clone() })
        })
    }
}

/// `own` on the cards of `other`.
fn moved(own: &Grant, other: &Grant) -> Grant {
    let mut grant = own.clone();
    if own.slices.len() == other.slices.len() {
        for (slice, target) in grant.slices.iter_mut().zip(&other.slices) {
            slice.device = DeviceId::clone(&target.device);
            slice.index = target.index;
            if own.whole {
                slice.share = target.share;
            }
        }
    }
    grant
}
