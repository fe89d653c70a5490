//! After the fact: kubelet says who holds which ids. Wrong assumptions are exchanged, records corrected.

use std::collections::{BTreeMap, BTreeSet};

use kerf::annotation::{self, Keys};
use kerf::ids::{ContainerName, DeviceId, PodRef, PodUid};
use kerf::plan::{Placement, Slice};
use kerf::request::ContainerRequest;

use super::{Claim, Claims, Entry, Key, amount, lends};
use crate::ids::{Ids, Resource};

/// What kubelet says that one container holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The pod's name; kubelet does not tell its uid.
    pub pod: PodRef,
    /// The container.
    pub container: ContainerName,
    /// Its ids of `vcuda-core`.
    pub core: Ids,
    /// Its ids of `vcuda-memory`.
    pub memory: Ids,
}

/// What a comparison with kubelet's list has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Assumptions that were wrong: the container assumed, and the one that really has the ids.
    pub swaps: Vec<(Key, Key)>,
    /// Claims that were found again after a restart of the plugin.
    pub adopted: Vec<Key>,
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

impl Claims {
    /// Compares with kubelet's complete list, which was asked for when [`Claims::calls`] was `asked_at`.
    ///
    /// What the list shows is so. What it lacks says nothing about call number `asked_at` itself: kubelet notes
    /// what a container holds when it has our answer, which may have been on its way while we asked. Of all calls
    /// before it kubelet has had the answers, since it makes one at a time.
    pub fn reconcile(&mut self, held: &[Held], asked_at: u64) -> Findings {
        let mut findings = Findings::default();
        for entry in self.pods.values_mut() {
            let Entry { claims, placement, .. } = entry;
            for (name, claim) in claims.iter_mut().filter(|(_, claim)| claim.order < asked_at) {
                // kubelet's list leaves ordinary init containers out
                let listed = placement.as_ref().is_none_or(|placement| {
                    !placement.plan.grants.iter().any(|grant| grant.container == *name && lends(grant.kind))
                });
                claim.seen &= !listed;
            }
        }
        for item in held.iter().filter(|item| !item.core.is_empty() || !item.memory.is_empty()) {
            let key = self.by_reference(&item.pod).map(|pod| Key { pod, container: item.container.clone() });
            let Some(key) = key.filter(|key| self.requested(key).is_some()) else {
                findings.unknown.push(item.pod.clone());
                continue;
            };
            let own = self.pods.get(&key.pod).and_then(|entry| entry.claim(&key.container));
            if own.is_some_and(|claim| !claim.released && matches(claim, item)) {
                self.complete(&key, item, asked_at);
                self.confirm(&key);
            } else if let Some((assumed, order)) = self.claimed_by(item, &key.pod) {
                // a call after the question makes the answer stale for these ids
                if order > asked_at {
                    continue;
                }
                if self.exchange(&assumed, &key) {
                    self.complete(&key, item, asked_at);
                    self.confirm(&key);
                    findings.swaps.push((assumed, key));
                } else {
                    // taken for a container with another need, after some pod failed amid: no fair exchange, but
                    // the other must not keep cards that are this one's
                    self.swap_cards(&assumed, &key);
                    if let Some(entry) = self.pods.get_mut(&assumed.pod) {
                        entry.claims.remove(&assumed.container);
                        entry.doubtful = true;
                    }
                    self.adopt(&key, item);
                    findings.adopted.push(key);
                }
            } else if own.is_none_or(|claim| claim.order <= asked_at) {
                self.adopt(&key, item);
                findings.adopted.push(key);
            }
        }
        let claimed: BTreeSet<&Ids> =
            self.pods.values().flat_map(|entry| entry.claims.values()).filter_map(|c| c.core.as_ref()).collect();
        let listed = |ids: &Ids| held.iter().any(|item| item.core == *ids);
        self.answers.retain(|ids, (_, order)| *order > asked_at || claimed.contains(ids) || listed(ids));
        // what kubelet did not name as another's was theirs, and ended with them
        self.pods.retain(|_, entry| entry.over.is_none_or(|over| over >= asked_at));
        findings
    }

    /// PreStartContainer named these ids: their container is about to run.
    pub fn starts(&mut self, ids: &Ids) -> Option<Key> {
        let key = self.holder(ids)?;
        let entry = self.pods.get(&key.pod)?;
        // only an ordinary init container has no better witness
        if entry.grant(&key.container).is_some_and(|grant| lends(grant.kind)) {
            self.confirm(&key);
        }
        Some(key)
    }

    /// Whether some claim still lacks kubelet's word.
    pub fn unconfirmed(&self) -> bool {
        self.pods.values().any(|entry| {
            entry.claims.iter().any(|(name, claim)| {
                !claim.confirmed && !claim.released && !entry.grant(name).is_some_and(|grant| lends(grant.kind))
            })
        })
    }

    fn requested(&self, key: &Key) -> Option<&ContainerRequest> {
        let entry = self.pods.get(&key.pod).filter(|entry| entry.placement.is_some())?;
        entry.pod.request.containers.iter().find(|container| container.name == key.container)
    }

    /// The claim with these ids: by those of core first, whose answer named the cards; of the pod itself first.
    /// Init containers lend theirs to the containers after them and are not listed, so theirs are not meant.
    fn claimed_by(&self, item: &Held, own: &PodUid) -> Option<(Key, u64)> {
        let by = |resource: Resource, ids: &Ids| {
            let of = |entry: &Entry| {
                let (name, claim) = entry.claims.iter().find(|(name, claim)| {
                    let lent = entry.grant(name).is_some_and(|grant| lends(grant.kind));
                    !lent && !claim.released && claim.ids(resource) == Some(ids)
                })?;
                Some((Key { pod: entry.pod.uid.clone(), container: name.clone() }, claim.order))
            };
            let mut others = self.pods.values().filter(|entry| entry.pod.uid != *own);
            self.pods.get(own).and_then(of).or_else(|| others.find_map(of))
        };
        let (core, memory) = (&item.core, &item.memory);
        let found = (!core.is_empty()).then(|| by(Resource::Core, core)).flatten();
        found.or_else(|| (!memory.is_empty()).then(|| by(Resource::Memory, memory)).flatten())
    }

    /// kubelet lists both resources where the claim has one: the other was taken for another container, whose
    /// half it is not. The half of core carried the answer, so the cards go with it.
    fn complete(&mut self, key: &Key, item: &Held, asked_at: u64) {
        let claim = self.pods.get_mut(&key.pod).and_then(|entry| entry.claims.get_mut(&key.container));
        if let Some(claim) = claim.filter(|claim| claim.order <= asked_at) {
            // a half that kubelet does not list with it was a failed twin's
            let latest = claim.order == asked_at;
            let wrong = |own: &Option<Ids>, listed: &Ids| {
                own.as_ref().is_some_and(|own| own != listed) && !(latest && listed.is_empty())
            };
            if wrong(&claim.memory, &item.memory) {
                claim.memory = None;
            }
            if wrong(&claim.core, &item.core) {
                claim.core = None;
            }
        }
        for (resource, ids) in [(Resource::Core, &item.core), (Resource::Memory, &item.memory)] {
            let own = self.pods.get(&key.pod).and_then(|entry| entry.claim(&key.container));
            if ids.is_empty() || own.is_none_or(|claim| claim.ids(resource).is_some()) {
                continue;
            }
            let other = self.pods.values().find_map(|entry| {
                let (name, _) = entry.claims.iter().find(|(name, claim)| {
                    let lent = entry.grant(name).is_some_and(|grant| lends(grant.kind));
                    !lent && !claim.confirmed && claim.ids(resource) == Some(ids)
                })?;
                Some(Key { pod: entry.pod.uid.clone(), container: name.clone() })
            });
            if let Some(other) = other {
                if resource == Resource::Core {
                    self.swap_cards(&other, key);
                }
                let former = self.pods.get_mut(&other.pod).and_then(|entry| {
                    entry.doubtful = true;
                    entry.claims.get_mut(&other.container)
                });
                if let Some(claim) = former {
                    claim.set(resource, None);
                }
            }
            let claim = self.pods.get_mut(&key.pod).and_then(|entry| entry.claims.get_mut(&key.container));
            if let Some(claim) = claim {
                claim.set(resource, Some(ids.clone()));
            }
        }
    }

    fn confirm(&mut self, key: &Key) {
        self.believe_answer(key);
        let Some(entry) = self.pods.get_mut(&key.pod) else { return };
        let Entry { claims, placement, .. } = entry;
        for (name, claim) in claims.iter_mut() {
            let of_init = placement.as_ref().is_some_and(|placement| {
                placement.plan.grants.iter().any(|grant| grant.container == *name && lends(grant.kind))
            });
            if *name == key.container || of_init {
                claim.seen = true;
                claim.confirmed = true;
                claim.released &= *name != key.container;
            }
        }
    }

    /// The container has the cards that the answer named, whatever happened to records since.
    fn believe_answer(&mut self, key: &Key) {
        let Some(entry) = self.pods.get(&key.pod) else { return };
        let ids = entry.claim(&key.container).and_then(|claim| claim.core.as_ref());
        let answered = ids.and_then(|ids| self.answers.get(ids)).map(|(slices, _)| slices.clone());
        let (Some(answered), Some(grant)) = (answered, entry.grant(&key.container)) else { return };
        let same = grant.slices.len() == answered.len()
            && grant
                .slices
                .iter()
                .zip(&answered)
                .all(|(believed, real)| self.card(&believed.device).is_some_and(|card| card.id == real.device));
        if same {
            return;
        }
        if let Some(entry) = self.pods.get_mut(&key.pod) {
            entry.exchanged = true;
            if let Some(grant) = entry.grant_mut(&key.container) {
                for (slice, real) in grant.slices.iter_mut().zip(answered) {
                    let share = if grant.whole { real.share } else { slice.share };
                    *slice = Slice { share, ..real };
                }
            }
        }
    }

    /// What was assumed of `a` is true of `b`, and the other way round. Pods of one shape change places as a
    /// whole; otherwise the two containers do, if they ask for the same.
    fn exchange(&mut self, a: &Key, b: &Key) -> bool {
        let shape = |entry: &Entry| -> Vec<_> {
            let containers = entry.pod.request.containers.iter();
            containers.map(|c| (c.kind, amount(c, Resource::Core), amount(c, Resource::Memory))).collect()
        };
        if a.pod == b.pod {
            return self.exchange_containers(a, b);
        }
        let (Some(left), Some(right)) = (self.pods.get(&a.pod), self.pods.get(&b.pod)) else { return false };
        let position = |entry: &Entry, name: &ContainerName| {
            entry.pod.request.containers.iter().position(|container| container.name == *name)
        };
        // a pod of which kubelet has confirmed a part keeps that part
        let open = |entry: &Entry| !entry.claims.values().any(|claim| claim.seen);
        let alike = open(left)
            && open(right)
            && shape(left) == shape(right)
            && position(left, &a.container) == position(right, &b.container);
        if !alike {
            return self.exchange_containers(a, b);
        }
        let names = |entry: &Entry| -> Vec<ContainerName> {
            entry.pod.request.containers.iter().map(|container| container.name.clone()).collect()
        };
        let pairs: Vec<_> = names(left).into_iter().zip(names(right)).collect();
        for (name_a, name_b) in pairs {
            self.exchange_pair(
                &Key { pod: a.pod.clone(), container: name_a },
                &Key { pod: b.pod.clone(), container: name_b },
            );
        }
        let open = self.open.take();
        self.open = match open {
            Some(uid) if uid == a.pod => Some(b.pod.clone()),
            Some(uid) if uid == b.pod => Some(a.pod.clone()),
            other => other,
        };
        let mut doubt = |uid: &PodUid, doubtful: bool| {
            self.pods.get_mut(uid).map(|entry| std::mem::replace(&mut entry.doubtful, doubtful))
        };
        let of_a = doubt(&a.pod, false).unwrap_or_default();
        let of_b = doubt(&b.pod, of_a).unwrap_or_default();
        doubt(&a.pod, of_b);
        true
    }

    fn exchange_containers(&mut self, a: &Key, b: &Key) -> bool {
        let same = match (self.requested(a), self.requested(b)) {
            (Some(a), Some(b)) => a.ask == b.ask,
            _ => false,
        };
        if same {
            self.exchange_pair(a, b);
        }
        same
    }

    fn exchange_pair(&mut self, a: &Key, b: &Key) {
        self.swap_cards(a, b);
        let mut take =
            |key: &Key| self.pods.get_mut(&key.pod).and_then(|entry| entry.claims.remove(&key.container));
        let (of_a, of_b) = (take(a), take(b));
        for (key, claim) in [(a, of_b), (b, of_a)] {
            if let (Some(entry), Some(claim)) = (self.pods.get_mut(&key.pod), claim) {
                entry.claims.insert(key.container.clone(), claim);
            }
        }
        for last in self.last.values_mut() {
            if last == a {
                *last = b.clone();
            } else if last == b {
                *last = a.clone();
            }
        }
    }

    /// kubelet lists a container with ids that no call of this process gave: the plugin was restarted. The
    /// record says which cards it has; where it was never confirmed and the ids name other cards, and as many,
    /// the ids say it: records change places within moments, and the plugin ended between.
    fn adopt(&mut self, key: &Key, item: &Held) {
        let some = |ids: &Ids| (!ids.is_empty()).then(|| ids.clone());
        let named: Vec<(DeviceId, u32)> = item
            .core
            .cards()
            .into_keys()
            .filter_map(|card| self.cards.get(card))
            .map(|card| (card.id.clone(), card.index))
            .collect();
        let recorded = self.pods.get(&key.pod).and_then(|entry| entry.grant(&key.container)).map(|grant| {
            let devices: Vec<DeviceId> =
                grant.devices().map(|d| self.card(d).map_or_else(|| d.clone(), |card| card.id.clone())).collect();
            devices
        });
        let calls = self.calls;
        let Some(entry) = self.pods.get_mut(&key.pod) else { return };
        let differs = recorded.is_some_and(|recorded| {
            recorded.len() == named.len() && !named.iter().all(|(device, _)| recorded.contains(device))
        });
        if differs && !entry.pod.confirmed {
            entry.exchanged = true;
            if let Some(grant) = entry.grant_mut(&key.container) {
                for (slice, (device, index)) in grant.slices.iter_mut().zip(named) {
                    *slice = Slice { device, index, share: slice.share };
                }
            }
        }
        let claim = Claim {
            core: some(&item.core),
            memory: some(&item.memory),
            order: calls,
            seen: true,
            confirmed: true,
            released: false,
        };
        entry.claims.insert(key.container.clone(), claim);
        self.confirm(key);
    }

    /// What the API server shows otherwise than it is.
    ///
    /// A pod all of whose containers are confirmed is marked as such. A placement is written anew where it was
    /// exchanged, and where somebody changed it after the pod got its cards.
    pub fn corrections(&self, keys: &Keys) -> Vec<Correction> {
        self.pods
            .values()
            .filter(|entry| entry.over.is_none())
            .filter_map(|entry| {
                let placement = entry.placement.as_ref()?;
                let confirmed = entry.pod.request.containers.iter().all(|container| {
                    entry.claim(&container.name).is_some_and(|claim| claim.confirmed && !claim.released)
                        && Resource::ALL.iter().all(|resource| !entry.outstanding(container, *resource))
                });
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
                (!annotations.is_empty()).then(|| Correction {
                    uid: entry.pod.uid.clone(),
                    reference: entry.pod.reference.clone(),
                    annotations,
                })
            })
            .collect()
    }
}

/// Whether a claim's ids are the ones that kubelet lists; one resource suffices, core first.
fn matches(claim: &Claim, item: &Held) -> bool {
    if claim.core.is_some() && !item.core.is_empty() {
        claim.core.as_ref() == Some(&item.core)
    } else {
        claim.memory.is_some() && claim.memory.as_ref() == Some(&item.memory)
    }
}
