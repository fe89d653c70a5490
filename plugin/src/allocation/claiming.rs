//! What an answer to Allocate changes: the container has these ids, as far as the call shows.

use std::cmp::Reverse;

use kerf::ids::PodUid;

use crate::allocation::allocations::Allocations;
use crate::allocation::answer::{Answer, Refusal};
use crate::allocation::answers::AnsweredIds;
use crate::allocation::claim::Event;
use crate::allocation::decision::Decision;
use crate::allocation::entry::{Entry, Noted};
use crate::allocation::pod::Key;
use crate::device::ids::{Ids, Resource};

impl Allocations {
    pub(super) fn claim(
        &mut self,
        key: Key,
        decision: Decision,
        resource: &Resource,
        ids: Ids,
    ) -> Result<Answer, Refusal> {
        let answer = self.answer(&key, decision)?;
        self.hold(&key, resource, &ids);
        if *resource == Resource::Core {
            self.vacate(&ids, &key.pod);
            let others = || self.pods.values().filter(|entry| entry.pod.uid != key.pod);
            let held = |ids: &Ids| {
                let mut claims = others().flat_map(|entry| entry.claims.values());
                claims.any(|claim| claim.listed() && claim.core() == Some(ids))
            };
            let cards = answer.grant.gpus.amounts().map(|(device, share)| (device.clone(), share)).collect();
            self.answers.add(AnsweredIds { key: key.clone(), ids, cards }, held);
        }
        Ok(answer)
    }

    pub(super) fn hold(&mut self, key: &Key, resource: &Resource, ids: &Ids) {
        let call = self.kubelet.answered();
        self.release_others(&key.pod, resource, ids);
        if let Some(open) = self.open.take_if(|open| *open != key.pod)
            && let Some(entry) = self.pods.get_mut(&open)
            && entry.next().next().is_some()
        {
            // kubelet went on to another pod before this one was complete
            entry.noted = Noted::NotAll;
        }
        if let Some(entry) = self.pods.get_mut(&key.pod) {
            entry.claims.entry(key.container.clone()).or_default().answered(resource, ids.clone(), call);
            entry.noted = Noted::All;
            self.open = entry.next().next().is_some().then(|| key.pod.clone());
        }
    }

    /// kubelet gives out only ids that it takes for free: claims of pods that it does not list are over for it, and
    /// ids that it never noted were never given.
    fn release_others(&mut self, pod: &PodUid, resource: &Resource, ids: &Ids) {
        for entry in self.pods.values_mut().filter(|entry| entry.pod.uid != *pod) {
            let Entry { claims, noted, .. } = entry;
            claims.retain(|_, claim| {
                let taken = claim.ids(resource).is_some_and(|held| held.intersects(ids));
                let valid = !taken || claim.happens(Event::GivenToOthers);
                if !valid {
                    *noted = Noted::NotAll;
                }
                valid
            });
        }
    }

    pub(super) fn answer(&self, key: &Key, decision: Decision) -> Result<Answer, Refusal> {
        let found = self.pods.get(&key.pod).and_then(|entry| {
            let placement = entry.placement()?;
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
    fn claimed(&self, resource: &Resource, ids: &Ids) -> Vec<Key> {
        let claims = self.pods.values().flat_map(|entry| entry.claims.iter().map(move |claim| (entry, claim)));
        let mut found: Vec<_> = claims
            .filter(|(_, (_, claim))| !claim.released() && claim.ids(resource) == Some(ids))
            .map(|(entry, (name, claim))| {
                (Reverse(claim.call()), Key { pod: entry.pod.uid.clone(), container: name.clone() })
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, key)| key).collect()
    }

    /// The container that these very ids were answered for before.
    pub(super) fn repeated(&self, resource: &Resource, ids: &Ids) -> Option<(Key, Decision)> {
        let holders = self.claimed(resource, ids);
        let decision = Decision::repeated(holders.len());
        holders.into_iter().next().map(|key| (key, decision))
    }

    /// What the containers that hold these ids of core were given, by all that is known now.
    pub fn holding(&self, core: &Ids) -> Vec<Answer> {
        let holders = self.claimed(&Resource::Core, core);
        holders.iter().filter_map(|key| self.answer(key, Decision::repeated(holders.len())).ok()).collect()
    }
}
