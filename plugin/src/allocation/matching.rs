//! Allocate: which waiting container is this call for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::{ContainerName, PodRef, PodUid};

use crate::allocation::answers::AnsweredIds;
use crate::allocation::entry::{Claim, Entry, Reach};
use crate::allocation::{Allocations, Answer, Key, Refusal, Stage};
use crate::device::ids::{Ids, Resource};

/// How well a waiting container fits a call; less is better. In order of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    turn: Turn,
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

/// Whether kubelet can be at a pod. Of two that are equal in it nothing tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// Not on kubelet's list, so not being admitted.
    absent: bool,
    /// kubelet is at the pod that came onto its list last.
    since: Reverse<u64>,
    /// On its way out.
    leaving: bool,
    /// Runs, or says of itself that it has its cards.
    settled: bool,
}

/// A container that a call can be for.
struct Waiting {
    fit: Fit,
    key: Key,
    /// Whether its pod has a placement that is believed. Of shares by count the ids say themselves what they are.
    placed: bool,
}

impl Allocations {
    /// Matches an Allocate, and claims.
    ///
    /// For a container of the pod that kubelet is admitting, by its list. Without a list, for the one that waits for
    /// this amount and was placed first, as long as it makes no difference which: such pods change places afterwards; and
    /// where nobody waits, the ids may have been answered before.
    ///
    /// # Errors
    /// [`Refusal`]. Unless it is [settled](Refusal::settled), the caller refreshes what it knows and asks again.
    pub fn allocate(&mut self, resource: &Resource, ids: Ids) -> Result<Answer, Refusal> {
        let found = match &self.other_domain {
            Some(other_domain) => Err(Refusal::OtherDomain(other_domain.clone())),
            None => self.callers(resource, ids.len(), Some(&ids)),
        };
        let mut refusal = None;
        for key in found.as_ref().map(Vec::as_slice).unwrap_or_default() {
            let room = self.pods.get(&key.pod).map_or(Ok(()), |entry| self.room(entry, &key.container));
            match room {
                Ok(()) => return self.claim(key.clone(), resource, ids),
                Err(other) => refusal = refusal.or(Some(other)),
            }
        }
        let refusal = refusal.or(found.err()).unwrap_or_else(|| Refusal::nobody(resource, ids.len()));
        let plain = matches!(refusal, Refusal::OtherDomain(_) | Refusal::NotPlaced { .. });
        let guessed = !std::mem::take(&mut self.fresh) && !plain;
        match self.repeated(resource, &ids).filter(|_| guessed) {
            Some(key) => self.answer(&key, true),
            None => Err(refusal),
        }
    }

    /// Notes that kubelet took these ids of shares by count. Their Allocate is answered by what they name, so nothing
    /// is refused: who has them is a matter of the books alone.
    pub fn take_counted(&mut self, resource: &Resource, ids: Ids) -> Option<Key> {
        let found = self.callers(resource, ids.len(), Some(&ids)).unwrap_or_default();
        let Some(key) = found.into_iter().next() else {
            let guessed = !std::mem::take(&mut self.fresh);
            return self.repeated(resource, &ids).filter(|_| guessed);
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

    /// Whether kubelet's list, asked for during this call, names the pod that the call is for, so that the API server need
    /// not be asked.
    pub fn certain(&self, resource: &Resource, units: u64) -> bool {
        let waiting = self.waiting(resource, units, None);
        let Some(first) = waiting.first().filter(|_| self.fresh) else { return false };
        let equal = waiting.iter().filter(|other| other.fit.turn == first.fit.turn).count();
        equal == 1 && !self.unknown_after(first.fit.turn.since.0.saturating_sub(1))
    }

    /// Whether pods that the API server has not shown came onto kubelet's list after this one.
    fn unknown_after(&self, number: u64) -> bool {
        let others = self.others.values().map(|other| &other.reference);
        let known: BTreeSet<&PodRef> =
            self.pods.values().map(|entry| &entry.pod.reference).chain(others).chain(self.ended.values()).collect();
        self.listed.as_ref().is_some_and(|listed| listed.after(number).any(|pod| !known.contains(pod)))
    }

    /// Containers that this call can be for, best first. `ids`: what kubelet chose, if it has.
    ///
    /// # Errors
    /// Where it can be for nobody that was placed, or nothing tells whether it is.
    pub(super) fn callers(&self, resource: &Resource, units: u64, ids: Option<&Ids>) -> Result<Vec<Key>, Refusal> {
        let waiting = self.waiting(resource, units, ids);
        let keys = |waiting: &[&Waiting]| waiting.iter().map(|one| one.key.clone()).collect();
        let nobody = || Refusal::nobody(resource, units);
        let ambiguous = || Refusal::Ambiguous { resource: resource.as_str().to_owned(), units };
        let unplaced = |one: &Waiting| {
            let entry = self.pods.get(&one.key.pod);
            let named = |entry: &Entry| Refusal::NotPlaced { pod: entry.pod.reference.clone(), listed: self.fresh };
            entry.map_or_else(nobody, named)
        };
        let first = waiting.first().ok_or_else(nobody)?;
        if self.fresh {
            if self.unknown_after(first.fit.turn.since.0) {
                return Err(nobody());
            }
            let last: Vec<&Waiting> = waiting.iter().filter(|one| one.fit.turn == first.fit.turn).collect();
            return match last.iter().filter(|one| one.placed).count() {
                0 => Err(unplaced(first)),
                1 if last.len() == 1 => Ok(keys(&last)),
                _ if matches!(resource, Resource::Counted(_)) => Ok(keys(&last)),
                _ => Err(ambiguous()),
            };
        }
        let placed: Vec<&Waiting> = waiting.iter().filter(|one| one.placed).collect();
        let Some((first, others)) = placed.split_first() else { return Err(unplaced(first)) };
        if *resource == Resource::Core {
            let stranger = waiting.iter().any(|one| !one.placed && !one.fit.turn.settled);
            let begun = self.open.as_ref() == Some(&first.key.pod);
            let unlike = others.iter().any(|other| !self.interchangeable(&first.key, &other.key));
            if stranger || (!begun && unlike) {
                return Err(ambiguous());
            }
        }
        Ok(keys(&placed))
    }

    fn waiting(&self, resource: &Resource, units: u64, ids: Option<&Ids>) -> Vec<Waiting> {
        let named = ids.map(Ids::cards).unwrap_or_default();
        let mut found: Vec<Waiting> = self
            .pods
            .values()
            .filter_map(|entry| {
                let (reach, container) = entry.awaits(resource, units)?;
                let name = &container.name;
                let listed = self.listed.as_ref();
                let since = listed.filter(|_| self.fresh).and_then(|listed| listed.since(&entry.pod.reference));
                let turn = Turn {
                    absent: listed.is_some_and(|listed| !listed.contains(&entry.pod.reference)),
                    since: Reverse(since.unwrap_or_default()),
                    leaving: entry.pod.stage != Stage::Live,
                    settled: entry.settled(),
                };
                let fit = Fit {
                    turn,
                    reach,
                    other: self.open.as_ref() != Some(&entry.pod.uid),
                    doubtful: entry.doubtful,
                    fresh: entry.claims.is_empty(),
                    elsewhere: !named.is_empty() && !self.on_cards(entry, name, &named),
                    time: entry.placement.as_ref().map_or(0, |placement| placement.time),
                };
                Some(Waiting {
                    fit,
                    key: Key { pod: entry.pod.uid.clone(), container: name.clone() },
                    placed: entry.placement.is_some() || matches!(resource, Resource::Counted(_)),
                })
            })
            .collect();
        // where kubelet has just said which pods it is at, it is no other
        found.retain(|one| !(self.fresh && one.fit.turn.absent));
        found.sort_by(|a, b| (a.fit, &a.key).cmp(&(b.fit, &b.key)));
        found
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
        let answer = self.answer(&key, false)?;
        self.hold(&key, resource, &ids);
        if *resource == Resource::Core {
            self.vacate(&ids, &key.pod);
            self.given(AnsweredIds { key, ids, cards: answer.grant.slices.clone() });
        }
        Ok(answer)
    }

    /// The container has these ids, as far as this call shows.
    fn hold(&mut self, key: &Key, resource: &Resource, ids: &Ids) {
        self.fresh = false;
        self.offered = None;
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
        found.ok_or(Refusal::nobody(&Resource::Core, 0))
    }

    /// What those who hold these ids of core were given, by all that is known by now.
    pub fn holding(&self, core: &Ids) -> Vec<Answer> {
        self.claimed(&Resource::Core, core).iter().filter_map(|key| self.answer(key, true).ok()).collect()
    }
}
