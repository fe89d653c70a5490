//! Allocate: which waiting container is this call for? And what an answer changes: the container has these ids, as
//! far as the call shows.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kerf::ids::{ContainerName, PodUid};

use crate::allocation::{
    Allocations, Answer, AnsweredIds, Criterion, Decision, Entry, Event, Fit, Key, Refusal, Stage,
};
use crate::device::ids::{Ids, Resource};

struct Waiting {
    fit: Fit,
    key: Key,
    /// The number of kubelet's list on which its pod came, where that was asked for during this call.
    since: u64,
    /// Its pod runs, or the record says that it has its GPUs.
    running: bool,
    /// Whether its pod has a trusted placement. Shares by count need none: the ids themselves name the GPUs.
    placed: bool,
}

/// The containers that a call can be for, best first.
pub(super) struct Callers {
    waiting: Vec<Waiting>,
    /// This many of them, from the first, may be given what is asked for.
    eligible: usize,
    listed_now: bool,
}

impl Callers {
    /// The containers that may be given what is asked for.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.waiting.iter().take(self.eligible).map(|one| &one.key)
    }

    /// Chooses the container at this place; those before it have no room on their GPUs.
    fn choose(&self, at: usize) -> Option<(Key, Decision)> {
        let chosen = self.waiting.get(at)?;
        let others = self.waiting.iter().enumerate().filter(|(other, _)| *other != at).map(|(other, one)| {
            (&one.key, if other < at { Criterion::HasRoom } else { chosen.fit.decided_by(&one.fit) })
        });
        Some((chosen.key.clone(), Decision::new(others, self.listed_now)))
    }
}

impl Allocations {
    /// Matches an Allocate to a container, and claims the ids for it.
    ///
    /// With kubelet's list: a container of the pod that kubelet is admitting. Without a list: the one that waits
    /// for this amount and was placed first, as long as it makes no difference which; such pods change places
    /// afterwards. Where none waits, the ids may have been answered before.
    ///
    /// # Errors
    /// [`Refusal`]. Unless it is [settled](Refusal::settled), the caller refreshes what it knows and asks again.
    pub fn allocate(&mut self, resource: &Resource, ids: Ids) -> Result<Answer, Refusal> {
        let found = match self.kubelet.other_domain() {
            Some(other_domain) => Err(Refusal::OtherDomain(other_domain.clone())),
            None => self.callers(resource, ids.len(), Some(&ids)),
        };
        let refusal = match found.and_then(|callers| self.with_room(&callers)) {
            Ok((key, decision)) => {
                let answer = self.answer(&key, decision)?;
                self.hold(&key, resource, &ids);
                if *resource == Resource::Core {
                    self.answered(&answer, ids);
                }
                return Ok(answer);
            }
            Err(refusal) => refusal,
        };
        let plain = matches!(refusal, Refusal::OtherDomain(_) | Refusal::NotPlaced { .. });
        let guessed = !self.kubelet.refused() && !plain;
        match self.repeated(resource, &ids).filter(|_| guessed) {
            Some((key, decision)) => self.answer(&key, decision),
            None => Err(refusal),
        }
    }

    /// The first container that has room on its GPUs.
    fn with_room(&self, callers: &Callers) -> Result<(Key, Decision), Refusal> {
        let mut refusal = None;
        for (at, key) in callers.keys().enumerate() {
            let room = self.pods.get(&key.pod).map_or(Ok(()), |entry| self.room(entry, &key.container));
            match room {
                Ok(()) => return callers.choose(at).ok_or_else(Refusal::unknown),
                Err(other) => refusal = refusal.or(Some(other)),
            }
        }
        Err(refusal.unwrap_or_else(Refusal::unknown))
    }

    /// Notes that kubelet took these ids of shares by count. Their Allocate is answered from the GPUs that they
    /// name, so nothing is refused: only the records depend on which container has them.
    pub fn take_counted(&mut self, resource: &Resource, ids: Ids) -> Option<(Key, Decision)> {
        let callers = self.callers(resource, ids.len(), Some(&ids)).ok();
        let Some((key, decision)) = callers.and_then(|callers| callers.choose(0)) else {
            let guessed = !self.kubelet.refused();
            return self.repeated(resource, &ids).filter(|_| guessed);
        };
        let listed = |entry: &Entry| self.kubelet.contains(&entry.pod.reference);
        let sure = self.kubelet.during_call() && self.pods.get(&key.pod).is_some_and(listed);
        self.hold(&key, resource, &ids);
        if sure {
            // an ordinary init container is on no list: this is the only evidence that there will ever be
            if let Some(entry) = self.pods.get_mut(&key.pod)
                && entry.is_init(&key.container)
                && let Some(claim) = entry.claims.get_mut(&key.container)
            {
                claim.happens(Event::Started);
            }
            self.believe(&key, resource, &ids);
        }
        Some((key, decision))
    }

    /// Whether kubelet's list, asked for during this call, names the pod that the call is for, so that the API
    /// server need not be asked.
    pub fn certain(&self, resource: &Resource, units: u64) -> bool {
        let waiting = self.waiting(resource, units, None);
        let Some(first) = waiting.first().filter(|_| self.kubelet.during_call()) else { return false };
        let equal = waiting.iter().filter(|other| other.fit.turn() == first.fit.turn()).count();
        equal == 1 && !self.unknown_after(first.since.saturating_sub(1))
    }

    /// Whether pods that the API server has not shown came onto kubelet's list after this one.
    fn unknown_after(&self, number: u64) -> bool {
        let known = self.names();
        self.kubelet.after(number).any(|pod| !known.contains(pod))
    }

    /// Containers that this call can be for. `ids`: those that kubelet chose, if it has chosen.
    ///
    /// # Errors
    /// Where it can be for no container with a placement, or it is unknown whether it is.
    pub(super) fn callers(&self, resource: &Resource, units: u64, ids: Option<&Ids>) -> Result<Callers, Refusal> {
        let mut waiting = self.waiting(resource, units, ids);
        let listed_now = self.kubelet.during_call();
        let nobody = || Refusal::nobody(resource, units);
        let ambiguous = || Refusal::Ambiguous { resource: resource.as_str().to_owned(), units };
        let unplaced = |one: &Waiting| {
            let entry = self.pods.get(&one.key.pod);
            let named = |entry: &Entry| Refusal::NotPlaced { pod: entry.pod.reference.clone(), listed: listed_now };
            entry.map_or_else(nobody, named)
        };
        let first = waiting.first().ok_or_else(nobody)?;
        if listed_now {
            if self.unknown_after(first.since) {
                return Err(nobody());
            }
            // they come first
            let last = || waiting.iter().take_while(|one| one.fit.turn() == first.fit.turn());
            let eligible = last().count();
            return match last().filter(|one| one.placed).count() {
                0 => Err(unplaced(first)),
                _ if eligible == 1 || matches!(resource, Resource::Counted(_)) => {
                    Ok(Callers { waiting, eligible, listed_now })
                }
                _ => Err(ambiguous()),
            };
        }
        let unplaced = unplaced(first);
        let stranger = waiting.iter().any(|one| !one.placed && !one.running);
        waiting.retain(|one| one.placed);
        let Some((first, others)) = waiting.split_first() else { return Err(unplaced) };
        if *resource == Resource::Core {
            let begun = self.open.as_ref() == Some(&first.key.pod);
            let unlike = others.iter().any(|other| !self.interchangeable(&first.key, &other.key));
            if stranger || (!begun && unlike) {
                return Err(ambiguous());
            }
        }
        Ok(Callers { eligible: waiting.len(), waiting, listed_now })
    }

    fn waiting(&self, resource: &Resource, units: u64, ids: Option<&Ids>) -> Vec<Waiting> {
        let named = ids.map(Ids::cards).unwrap_or_default();
        let during_call = self.kubelet.during_call();
        let mut found = Vec::new();
        for entry in self.pods.values() {
            let Some((reach, container)) = entry.awaits(resource, units) else { continue };
            let listed = self.kubelet.since(&entry.pod.reference);
            let absent = self.kubelet.heard() && listed.is_none();
            // where kubelet has just listed the pods that it may be admitting, it is none of the others
            if during_call && absent {
                continue;
            }
            let since = listed.filter(|_| during_call).unwrap_or_default();
            let fit = Fit([
                (Criterion::Listed, absent.into()),
                // kubelet is admitting the pod that came onto its list last
                (Criterion::ListedLater, u64::MAX - since),
                (Criterion::NotTerminating, (entry.pod.stage != Stage::Live).into()),
                (Criterion::NotRunning, entry.settled().into()),
                (Criterion::NextContainer, reach as u64),
                (Criterion::SamePodAsLastCall, (self.open.as_ref() != Some(&entry.pod.uid)).into()),
                (Criterion::NoAnswerLost, entry.answer_lost.into()),
                (Criterion::Begun, entry.claims.is_empty().into()),
                (
                    Criterion::IdsNameItsGpus,
                    (!named.is_empty() && !self.on_cards(entry, &container.name, &named)).into(),
                ),
                (Criterion::PlacedEarlier, entry.placed()),
            ]);
            debug_assert!(fit.0.is_sorted(), "the criteria stand in the order of their weight");
            found.push(Waiting {
                fit,
                key: entry.key(&container.name),
                since,
                running: entry.settled(),
                placed: entry.placement.is_some() || matches!(resource, Resource::Counted(_)),
            });
        }
        found.sort_by(|a, b| (a.fit, &a.key).cmp(&(b.fit, &b.key)));
        found
    }

    /// Whether the ids name exactly the GPUs that the container was placed on.
    fn on_cards(&self, entry: &Entry, name: &ContainerName, named: &BTreeMap<&str, u64>) -> bool {
        entry.grant(name).is_some_and(|grant| {
            let mut cards = grant.gpus.ids().map(|device| self.card(device));
            grant.gpus.devices().count() == named.len()
                && cards.all(|card| card.is_some_and(|card| named.contains_key(card.id.as_str())))
        })
    }

    fn hold(&mut self, key: &Key, resource: &Resource, ids: &Ids) {
        let call = self.kubelet.answered();
        self.release_others(&key.pod, resource, ids);
        if let Some(open) = self.open.take_if(|open| *open != key.pod)
            && let Some(entry) = self.pods.get_mut(&open)
            && entry.next().next().is_some()
        {
            // kubelet went on to another pod before this one was complete
            entry.answer_lost = true;
        }
        if let Some(entry) = self.pods.get_mut(&key.pod) {
            entry.claims.entry(key.container.clone()).or_default().answered(resource, ids.clone(), call);
            entry.answer_lost = false;
            self.open = entry.next().next().is_some().then(|| key.pod.clone());
        }
    }

    /// kubelet gives out only ids that it takes for free: claims of pods that it does not list are over for it, and
    /// ids that it never noted were never given.
    fn release_others(&mut self, pod: &PodUid, resource: &Resource, ids: &Ids) {
        for entry in self.pods.values_mut().filter(|entry| entry.pod.uid != *pod) {
            entry.retain_claims(|claim, _| {
                let taken = claim.ids(resource).is_some_and(|held| held.intersects(ids));
                !taken || claim.happens(Event::GivenToOthers)
            });
        }
    }

    /// Remembers the answer for these ids of core.
    fn answered(&mut self, answer: &Answer, ids: Ids) {
        let key = answer.key.clone();
        self.vacate(&ids, &key.pod);
        let others = || self.pods.values().filter(|entry| entry.pod.uid != key.pod);
        let held = |ids: &Ids| {
            let mut claims = others().flat_map(|entry| entry.claims.values());
            claims.any(|claim| claim.listed() && claim.core() == Some(ids))
        };
        let cards = answer.grant.gpus.amounts().map(|(device, share)| (device.clone(), share)).collect();
        self.answers.add(AnsweredIds { key: key.clone(), ids, cards }, held);
    }

    fn answer(&self, key: &Key, decision: Decision) -> Result<Answer, Refusal> {
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
                decision,
            })
        });
        found.ok_or_else(Refusal::unknown)
    }

    /// The containers that these very ids were claimed for, the last one first. An init container and those after
    /// it may have the same ids, and kubelet notes the ids of the earlier ones before it asks for the next.
    fn holders_of(&self, resource: &Resource, ids: &Ids) -> Vec<Key> {
        let mut found = Vec::new();
        for entry in self.pods.values() {
            let same =
                entry.claims.iter().filter(|(_, claim)| !claim.released() && claim.ids(resource) == Some(ids));
            found.extend(same.map(|(name, claim)| (Reverse(claim.call()), entry.key(name))));
        }
        found.sort();
        found.into_iter().map(|(_, key)| key).collect()
    }

    /// The container that these very ids were answered for before.
    fn repeated(&self, resource: &Resource, ids: &Ids) -> Option<(Key, Decision)> {
        let holders = self.holders_of(resource, ids);
        let decision = Decision::repeated(holders.len());
        holders.into_iter().next().map(|key| (key, decision))
    }

    /// What the containers that hold these ids of core were given, by all that is known now.
    pub fn holding(&self, core: &Ids) -> Vec<Answer> {
        let holders = self.holders_of(&Resource::Core, core);
        holders.iter().filter_map(|key| self.answer(key, Decision::repeated(holders.len())).ok()).collect()
    }
}
