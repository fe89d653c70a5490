//! Allocate: which waiting container is this call for.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kerf::ids::{ContainerName, PodUid};

use super::entry::{Claim, Entry, Reach};
use super::{Answer, Claims, Key, Refusal, Stage};
use crate::ids::{Ids, Resource};

/// How well a waiting container fits a call; less is better. In order of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    /// Not on kubelet's list, so not being admitted.
    absent: bool,
    /// On its way out.
    leaving: bool,
    /// Runs, or says of itself that it has its cards.
    settled: bool,
    /// Init containers would have to be over, or to be asked for again.
    reach: Reach,
    /// Not the pod of the last call.
    other: bool,
    /// Its cards were answered once already.
    doubtful: bool,
    /// Nothing of it was asked for yet.
    fresh: bool,
    /// The ids name other cards than the placed ones.
    elsewhere: bool,
    /// When it was placed.
    time: u64,
}

impl Claims {
    /// Matches an Allocate, and claims.
    ///
    /// For a container of the pod that kubelet is admitting, by its list; failing that, for the one that waits for
    /// this amount and was placed first, as long as it makes no difference which: such pods change places afterwards.
    /// Where nobody waits, the ids may have been answered before.
    ///
    /// # Errors
    /// [`Refusal`]. Before it is final, the caller refreshes what it knows and asks again.
    pub fn allocate(&mut self, resource: &Resource, ids: Ids) -> Result<Answer, Refusal> {
        let units = ids.len();
        let mut refusal = Refusal::NobodyWaits { resource: resource.as_str().to_owned(), units };
        let candidates = self.candidates(resource, units, Some(&ids));
        if *resource == Resource::Core && self.ambiguous(&candidates) {
            return Err(Refusal::Ambiguous { units });
        }
        for key in candidates {
            let room = self.pods.get(&key.pod).map_or(Ok(()), |entry| self.room(entry, &key.container));
            match room {
                Ok(()) => return self.claim(key, resource, ids),
                Err(other) if matches!(refusal, Refusal::NobodyWaits { .. }) => refusal = other,
                Err(_) => {}
            }
        }
        self.fresh = false;
        match self.repeated(resource, &ids) {
            Some(key) => self.answer(&key, true),
            None => Err(refusal),
        }
    }

    /// Notes that kubelet took these ids of shares by count. Their Allocate is answered by what they name, so nothing
    /// is refused: who has them is a matter of the books alone.
    pub fn take_counted(&mut self, resource: &Resource, ids: Ids) -> Option<Key> {
        let Some(key) = self.candidates(resource, ids.len(), Some(&ids)).into_iter().next() else {
            self.fresh = false;
            return self.repeated(resource, &ids);
        };
        let sure = self.listed_now(&key);
        self.hold(&key, resource, &ids);
        if sure {
            // an ordinary init container is on no list: this is all that is ever said of it
            if let Some(entry) = self.pods.get_mut(&key.pod)
                && entry.lent(&key.container)
                && let Some(claim) = entry.claims.get_mut(&key.container)
            {
                claim.confirmed = true;
            }
            self.believe(&key, resource, &ids);
        }
        Some(key)
    }

    /// Whether it makes a difference which of the candidates a call for core is for, and nothing tells.
    fn ambiguous(&self, candidates: &[Key]) -> bool {
        let Some((first, others)) = candidates.split_first() else { return false };
        let begun = self.open.as_ref() == Some(&first.pod);
        !begun && !self.listed_now(first) && others.iter().any(|other| !self.interchangeable(first, other))
    }

    fn listed_now(&self, key: &Key) -> bool {
        let entry = self.pods.get(&key.pod);
        self.fresh
            && entry.zip(self.listed.as_ref()).is_some_and(|(entry, listed)| listed.contains(&entry.pod.reference))
    }

    /// The containers that these very ids were claimed for, the last one first: an init container and those after it may
    /// have the same, and kubelet writes down what the ones before have before it asks for the next.
    fn claimed(&self, resource: &Resource, ids: &Ids) -> Vec<Key> {
        let claims = self.pods.values().flat_map(|entry| entry.claims.iter().map(move |claim| (entry, claim)));
        let mut found: Vec<_> = claims
            .filter(|(_, (_, claim))| !claim.released && claim.ids(resource) == Some(ids))
            .map(|(entry, (name, claim))| {
                (Reverse(claim.order), Key { pod: entry.pod.uid.clone(), container: name.clone() })
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, key)| key).collect()
    }

    fn repeated(&self, resource: &Resource, ids: &Ids) -> Option<Key> {
        self.claimed(resource, ids).into_iter().next()
    }

    /// Whether kubelet's list, asked for during this call, names the pod that the call is for.
    pub fn certain(&self, resource: &Resource, units: u64) -> bool {
        self.candidates(resource, units, None).first().is_some_and(|first| self.listed_now(first))
    }

    /// Containers that this call can be for, best first. `ids`: what kubelet chose, if it has.
    pub(super) fn candidates(&self, resource: &Resource, units: u64, ids: Option<&Ids>) -> Vec<Key> {
        let named = ids.map(Ids::cards).unwrap_or_default();
        let mut found: Vec<(Fit, Key)> = self
            .pods
            .values()
            .filter_map(|entry| {
                let (reach, container) = entry.awaits(resource, units)?;
                let name = &container.name;
                let fit = Fit {
                    absent: self.listed.as_ref().is_some_and(|listed| !listed.contains(&entry.pod.reference)),
                    leaving: entry.pod.stage != Stage::Live,
                    settled: entry.pod.confirmed || !entry.pod.runtime_ids.is_empty(),
                    reach,
                    other: self.open.as_ref() != Some(&entry.pod.uid),
                    doubtful: entry.doubtful,
                    fresh: entry.claims.is_empty(),
                    elsewhere: !named.is_empty() && !self.on_cards(entry, name, &named),
                    time: entry.placement.as_ref().map_or(0, |placement| placement.time),
                };
                Some((fit, Key { pod: entry.pod.uid.clone(), container: name.clone() }))
            })
            .collect();
        found.sort();
        // where kubelet has just said which pod it is, it is no other
        let sure = self.fresh && found.first().is_some_and(|(fit, _)| !fit.absent);
        found.retain(|(fit, _)| !(sure && fit.absent));
        found.into_iter().map(|(_, key)| key).collect()
    }

    /// Whether the ids name exactly the cards that the container was placed on.
    fn on_cards(&self, entry: &Entry, name: &ContainerName, named: &BTreeMap<&str, u64>) -> bool {
        entry.grant(name).is_some_and(|grant| {
            grant.slices.len() == named.len()
                && grant
                    .devices()
                    .all(|device| self.card(device).is_some_and(|card| named.contains_key(card.id.as_str())))
        })
    }

    fn claim(&mut self, key: Key, resource: &Resource, ids: Ids) -> Result<Answer, Refusal> {
        self.hold(&key, resource, &ids);
        let answer = self.answer(&key, false)?;
        if *resource == Resource::Core {
            // ids are given anew only where they are free: what they stood for is over
            self.answers.retain(|old, _| !old.intersects(&ids));
            self.vacate(&ids, &key.pod);
            self.answers.insert(ids, answer.grant.slices.clone());
        }
        Ok(answer)
    }

    /// The container has these ids, as far as this call shows.
    fn hold(&mut self, key: &Key, resource: &Resource, ids: &Ids) {
        self.fresh = false;
        self.calls += 1;
        let calls = self.calls;
        self.release_others(&key.pod, resource, ids);
        if let Some(open) = self.open.take_if(|open| *open != key.pod)
            && let Some(entry) = self.pods.get_mut(&open)
        {
            // kubelet went on to another pod before this one was complete
            let incomplete = entry.next().next().is_some();
            entry.doubtful |= incomplete;
        }
        if let Some(entry) = self.pods.get_mut(&key.pod) {
            let claim = entry.claims.entry(key.container.clone()).or_default();
            if claim.released {
                *claim = Claim::default();
            }
            claim.set(resource, Some(ids.clone()));
            claim.order = calls;
            claim.seen = false;
            entry.doubtful = false;
            self.open = entry.next().next().is_some().then(|| key.pod.clone());
        }
    }

    /// kubelet gives ids only when it believes them free: claims of pods that it does not list are over in its
    /// eyes, and what it never noted was never given.
    fn release_others(&mut self, pod: &PodUid, resource: &Resource, ids: &Ids) {
        for entry in self.pods.values_mut().filter(|entry| entry.pod.uid != *pod) {
            let Entry { claims, doubtful, .. } = entry;
            claims.retain(|_, claim| {
                let taken = !claim.seen && claim.ids(resource).is_some_and(|held| held.intersects(ids));
                claim.released |= taken;
                let void = taken && !claim.confirmed;
                *doubtful |= void;
                !void
            });
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
                user: entry.pod.users.get(&key.container).copied(),
                demanded: entry.pod.request.isolation.unwrap_or_default(),
                repeated,
            })
        });
        found.ok_or(Refusal::NobodyWaits { resource: Resource::Core.as_str().to_owned(), units: 0 })
    }

    /// What those who hold these ids of core were given, by all that is known by now.
    pub fn holding(&self, core: &Ids) -> Vec<Answer> {
        self.claimed(&Resource::Core, core).iter().filter_map(|key| self.answer(key, true).ok()).collect()
    }
}
