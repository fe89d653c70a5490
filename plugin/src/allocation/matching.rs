//! Allocate: which waiting container is this call for?

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kerf::ids::ContainerName;

use crate::allocation::allocations::Allocations;
use crate::allocation::answer::{Answer, Refusal};
use crate::allocation::claim::Event;
use crate::allocation::decision::{Criterion, Decision};
use crate::allocation::entry::Entry;
use crate::allocation::fit::{Fit, Turn};
use crate::allocation::pod::{Key, Stage};
use crate::device::ids::{Ids, Resource};

struct Waiting {
    fit: Fit,
    key: Key,
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
            Ok((key, decision)) => return self.claim(key, decision, resource, ids),
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
        let sure = self.listed_now(&key);
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

    fn listed_now(&self, key: &Key) -> bool {
        let entry = self.pods.get(&key.pod);
        self.kubelet.during_call() && entry.is_some_and(|entry| self.kubelet.contains(&entry.pod.reference))
    }

    /// Whether kubelet's list, asked for during this call, names the pod that the call is for, so that the API
    /// server need not be asked.
    pub fn certain(&self, resource: &Resource, units: u64) -> bool {
        let waiting = self.waiting(resource, units, None);
        let Some(first) = waiting.first().filter(|_| self.kubelet.during_call()) else { return false };
        let equal = waiting.iter().filter(|other| other.fit.turn == first.fit.turn).count();
        equal == 1 && !self.unknown_after(first.fit.turn.since.0.saturating_sub(1))
    }

    /// Whether pods that the API server has not shown came onto kubelet's list after this one.
    fn unknown_after(&self, number: u64) -> bool {
        let known = self.pods.names();
        self.kubelet.order().is_some_and(|order| order.after(number).any(|pod| !known.contains(pod)))
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
            if self.unknown_after(first.fit.turn.since.0) {
                return Err(nobody());
            }
            // they come first
            let last = || waiting.iter().take_while(|one| one.fit.turn == first.fit.turn);
            let eligible = last().count();
            return match last().filter(|one| one.placed).count() {
                0 => Err(unplaced(first)),
                1 if eligible == 1 => Ok(Callers { waiting, eligible, listed_now }),
                _ if matches!(resource, Resource::Counted(_)) => Ok(Callers { waiting, eligible, listed_now }),
                _ => Err(ambiguous()),
            };
        }
        let unplaced = unplaced(first);
        let stranger = waiting.iter().any(|one| !one.placed && !one.fit.turn.running);
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
        let mut found: Vec<Waiting> = self
            .pods
            .values()
            .filter_map(|entry| {
                let (reach, container) = entry.awaits(resource, units)?;
                let name = &container.name;
                let order = self.kubelet.order();
                let since = order.filter(|_| during_call).and_then(|order| order.since(&entry.pod.reference));
                let turn = Turn {
                    absent: order.is_some_and(|order| !order.contains(&entry.pod.reference)),
                    since: Reverse(since.unwrap_or_default()),
                    terminating: entry.pod.stage != Stage::Live,
                    running: entry.settled(),
                };
                let fit = Fit {
                    turn,
                    reach,
                    other_pod: self.open.as_ref() != Some(&entry.pod.uid),
                    noted: entry.noted,
                    untouched: entry.claims.is_empty(),
                    other_gpus: !named.is_empty() && !self.on_cards(entry, name, &named),
                    placed: entry.placement().map_or(0, |placement| placement.time),
                };
                Some(Waiting {
                    fit,
                    key: Key { pod: entry.pod.uid.clone(), container: name.clone() },
                    placed: entry.placement().is_some() || matches!(resource, Resource::Counted(_)),
                })
            })
            .collect();
        // where kubelet has just listed the pods that it may be admitting, it is none of the others
        found.retain(|one| !(during_call && one.fit.turn.absent));
        found.sort_by(|a, b| (a.fit, &a.key).cmp(&(b.fit, &b.key)));
        found
    }

    /// Whether the ids name exactly the GPUs that the container was placed on.
    fn on_cards(&self, entry: &Entry, name: &ContainerName, named: &BTreeMap<&str, u64>) -> bool {
        entry.grant(name).is_some_and(|grant| {
            grant.gpus.devices().count() == named.len()
                && grant
                    .gpus
                    .ids()
                    .all(|device| self.card(device).is_some_and(|card| named.contains_key(card.id.as_str())))
        })
    }
}
