//! Bursts of pods through a model of kubelet's rules, with rejections, restarts of kubelet and of the plugin, and
//! lists that kubelet does not give: whatever the order, every container's environment and its record name the
//! same cards, and so do its ids wherever kubelet asked.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::dice::Dice;
use super::*;

type Name = (String, ContainerName);

/// kubelet's device manager, as far as a plugin can tell.
struct Kubelet {
    free: BTreeMap<Resource, BTreeSet<String>>,
    held: BTreeMap<Name, BTreeMap<Resource, Vec<String>>>,
    /// Pods whose turn has come in this life and that were not rejected.
    present: BTreeSet<String>,
    /// Whether some set was chosen without asking, so that free ids no longer mirror free cards.
    unasked: bool,
}

impl Kubelet {
    fn new() -> Self {
        let ids = |count: u32| (0..CARDS).flat_map(move |c| (0..count).map(move |k| unit(&format!("GPU-{c}"), k)));
        let memory = u32::try_from(MEMORY).unwrap();
        let free =
            BTreeMap::from([(Resource::Core, ids(100).collect()), (Resource::Memory, ids(memory).collect())]);
        Self { free, held: BTreeMap::new(), present: BTreeSet::new(), unasked: false }
    }

    fn release(&mut self, pod: &str) {
        self.present.remove(pod);
        let held = std::mem::take(&mut self.held);
        for ((holder, name), ids) in held {
            if holder == pod {
                for (resource, ids) in ids {
                    self.free.get_mut(&resource).unwrap().extend(ids);
                }
            } else {
                self.held.insert((holder, name), ids);
            }
        }
    }

    /// The pod resources list: ordinary init containers are not in it.
    fn list(&self, pods: &[(Pod, bool)]) -> Listing {
        let lasting = |name: &str, container: &ContainerName| {
            let (pod, _) = pods.iter().find(|(pod, _)| &*pod.reference.name == name).unwrap();
            let found = pod.request.containers.iter().find(|c| c.name == *container);
            found.is_some_and(|c| c.kind != ContainerKind::Init)
        };
        let some = |ids: &BTreeMap<Resource, Vec<String>>| {
            ids.iter().map(|(resource, ids)| (resource.clone(), Ids::new(ids.iter().cloned()))).collect()
        };
        let held = self.held.iter().filter(|((pod, name), _)| self.present.contains(pod) && lasting(pod, name));
        Listing {
            pods: self.present.iter().map(|name| PodRef::new("ns", name.as_str())).collect(),
            held: held
                .map(|((pod, container), ids)| Held {
                    pod: PodRef::new("ns", pod.as_str()),
                    container: container.clone(),
                    ids: some(ids),
                })
                .collect(),
        }
    }
}

fn shapes() -> impl Strategy<Value = Vec<Vec<Shape>>> {
    use ContainerKind::*;
    let share = (prop_oneof![Just(10u64), Just(20), Just(30), Just(50)], 1u64..=5);
    let ask = prop_oneof![6 => share, 1 => Just((100, 0)), 1 => Just((200, 0)), 1 => Just((100, 4))];
    let app = ask.clone().prop_map(|(core, memory)| (App, core, memory));
    let early = (prop_oneof![Just(Init), Just(Sidecar)], ask).prop_map(|(kind, (c, m))| (kind, c, m));
    let pod = (prop::collection::vec(early, 0..=1), prop::collection::vec(app, 1..=3))
        .prop_map(|(early, apps)| early.into_iter().chain(apps).collect::<Vec<_>>());
    // few shapes, so that twins are common
    (prop::collection::vec(pod, 1..4), prop::collection::vec(0usize..4, 1..12))
        .prop_map(|(kinds, picks)| picks.into_iter().map(|pick| kinds[pick % kinds.len()].clone()).collect())
}

/// Whether an init container has other cards than a later container that asks for as much. After a restart of the
/// plugin between the two nothing tells them apart, since kubelet lists no init containers; the extender places them
/// together wherever there is room.
fn apart(request: &GpuRequest, plan: &Plan) -> bool {
    let cards = |name: &ContainerName| -> Vec<DeviceId> {
        plan.grants.iter().filter(|grant| grant.container == *name).flat_map(Grant::devices).cloned().collect()
    };
    request.containers.iter().enumerate().filter(|(_, container)| container.kind == ContainerKind::Init).any(
        |(at, init)| {
            request.containers[at + 1..].iter().any(|later| {
                amount(init, &Resource::Core) == amount(later, &Resource::Core)
                    && cards(&init.name) != cards(&later.name)
            })
        },
    )
}

/// What may go wrong besides the order.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// kubelet does not always give its list.
    silent: bool,
    /// kubelet rejects pods before and amid their calls.
    rejects: bool,
    /// kubelet and the plugin are restarted between any two calls.
    restarts: bool,
}

/// How kubelet's admission of one pod ended.
#[derive(PartialEq)]
enum End {
    Admitted,
    Rejected,
    /// kubelet was restarted amid: the pod's turn comes again.
    CutShort,
}

struct Burst {
    trouble: Trouble,
    dice: Dice,
    claims: Claims,
    kubelet: Kubelet,
    /// Whether each has ended.
    pods: Vec<(Pod, bool)>,
    /// What each container was given.
    given: BTreeMap<Name, Vec<DeviceId>>,
    /// The ceiling that its limits were written with.
    ceilings: BTreeMap<Name, Option<Milli>>,
}

impl Burst {
    fn new(shapes: &[Vec<Shape>], chance: Vec<u32>, trouble: Trouble) -> Self {
        let mut dice = Dice::new(chance);
        let mut pods: Vec<(Pod, bool)> = Vec::new();
        let mut plans = Vec::new();
        for (at, shape) in shapes.iter().enumerate() {
            let request = request(shape);
            let first = u32::try_from(dice.roll(CARDS as usize)).unwrap();
            let Some(placement) = place(&plans, &request, at as u64, first) else { continue };
            // twins may differ in their ceilings for bursts
            let limit = [None, Some(Milli(600)), Some(Milli::WHOLE)][dice.roll(3)];
            let placement = Placement { limit, ..placement };
            if trouble.restarts && apart(&request, &placement.plan) {
                continue;
            }
            plans.push(placement.plan.clone());
            pods.push((pod(&format!("p{at}"), request, Some(placement)), false));
        }
        let mut claims = Claims::default();
        claims.set_cards(cards());
        // some pods are seen by the watch before kubelet asks, the others only when the API server is asked
        for (pod, _) in &pods {
            if dice.roll(4) > 0 {
                claims.observe(pod.clone());
            }
        }
        Self {
            trouble,
            dice,
            claims,
            kubelet: Kubelet::new(),
            pods,
            given: BTreeMap::new(),
            ceilings: BTreeMap::new(),
        }
    }

    fn refresh(&mut self) {
        for (pod, ended) in &self.pods {
            let stage = if *ended { Stage::Ended } else { Stage::Live };
            self.claims.observe(Pod { stage, ..pod.clone() });
        }
    }

    fn compare(&mut self, within: bool) {
        let question = self.claims.question(within);
        self.claims.reconcile(&self.kubelet.list(&self.pods), question);
    }

    /// What the service does on a call.
    fn learn(&mut self, resource: &Resource, units: u64) -> bool {
        let silent = self.trouble.silent && self.dice.roll(3) == 0;
        if !silent {
            self.compare(true);
        }
        if !self.claims.certain(resource, units) {
            self.refresh();
            if !silent {
                self.compare(true);
            }
        }
        !silent
    }

    fn restart_plugin(&mut self) {
        self.claims = Claims::default();
        self.claims.set_cards(cards());
        self.refresh();
    }

    fn allocate(&mut self, resource: &Resource, chosen: &[String]) -> Result<Answer, Refusal> {
        let ids = Ids::new(chosen.to_vec());
        let first = self.claims.allocate(resource, ids.clone());
        first.or_else(|_| {
            self.refresh();
            self.compare(true);
            self.claims.allocate(resource, ids)
        })
    }

    fn choose(&mut self, resource: &Resource, size: usize, reusable: &BTreeSet<String>) -> Option<Vec<String>> {
        let mut again: Vec<String> = reusable.iter().cloned().collect();
        self.dice.shuffle(&mut again);
        again.truncate(size);
        self.kubelet.unasked |= !again.is_empty();
        let missing = size - again.len();
        if missing == 0 {
            return Some(again);
        }
        let mut available: Vec<String> = self.kubelet.free[resource].iter().cloned().collect();
        self.dice.shuffle(&mut available);
        if available.len() < missing {
            return None;
        }
        if available.len() == missing {
            self.kubelet.unasked = true;
            return Some(again.into_iter().chain(available).collect());
        }
        let offered: Vec<String> = available.into_iter().chain(again.iter().cloned()).collect();
        let chosen = self.claims.prefer(resource, &offered, &again, size);
        assert_eq!(chosen.len(), size, "a preference is complete");
        assert!(again.iter().all(|id| chosen.contains(id)), "required ids are kept");
        assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), size, "no id twice");
        assert!(chosen.iter().all(|id| offered.contains(id)), "only what was offered");
        Some(chosen)
    }

    /// kubelet admits one pod.
    fn admit(&mut self, pod: &Pod) -> End {
        let name = pod.reference.name.to_string();
        self.kubelet.present.insert(name.clone());
        let stop = if self.trouble.rejects && self.dice.roll(4) == 0 {
            self.dice.roll(pod.request.containers.len() * 2)
        } else {
            usize::MAX
        };
        let mut reusable: BTreeMap<Resource, BTreeSet<String>> = BTreeMap::new();
        let mut calls = 0;
        for container in &pod.request.containers {
            let mut resources = Resource::VCUDA.to_vec();
            self.dice.shuffle(&mut resources);
            let key = (name.clone(), container.name.clone());
            for resource in resources.into_iter().filter(|r| amount(container, r) > 0) {
                let known = self.kubelet.held.get(&key).and_then(|held| held.get(&resource)).cloned();
                let chosen = match known {
                    Some(held) => held,
                    None => {
                        if calls == stop {
                            return End::Rejected;
                        }
                        calls += 1;
                        let reuse = reusable.get(&resource).cloned().unwrap_or_default();
                        match self.call(pod, container, &resource, &reuse) {
                            Ok(chosen) => chosen,
                            Err(end) => return end,
                        }
                    }
                };
                let reuse = reusable.entry(resource).or_default();
                if container.kind == ContainerKind::Init {
                    reuse.extend(chosen);
                } else {
                    reuse.retain(|id| !chosen.contains(id));
                }
            }
        }
        End::Admitted
    }

    fn call(
        &mut self,
        pod: &Pod,
        container: &ContainerRequest,
        resource: &Resource,
        reuse: &BTreeSet<String>,
    ) -> Result<Vec<String>, End> {
        if self.trouble.restarts && self.dice.roll(9) == 0 {
            self.restart_plugin();
        }
        let units = amount(container, resource);
        let listed = self.learn(resource, units);
        let Some(chosen) = self.choose(resource, usize::try_from(units).unwrap(), reuse) else {
            // mixed sets of init containers can leave kubelet short; it fails such a pod by itself
            assert!(self.kubelet.unasked);
            return Err(End::Rejected);
        };
        if self.trouble.restarts && self.dice.roll(12) == 0 {
            self.restart_plugin();
        }
        if !self.claims.certain(resource, units) {
            self.learn(resource, units);
        }
        let answer = match self.allocate(resource, &chosen) {
            Ok(answer) => answer,
            // guesses: refusing is the safe side where a card would be given twice
            Err(Refusal::Overcommitted { .. } | Refusal::Ambiguous { .. }) if self.trouble.silent => {
                return Err(End::Rejected);
            }
            Err(refusal) => panic!("a bound pod is never refused: {refusal}"),
        };
        if listed && !self.trouble.silent {
            assert_eq!(answer.key.pod, pod.uid, "the pod is known, not guessed");
        }
        if self.trouble.restarts && self.dice.roll(9) == 0 {
            // kubelet ends before it has the answer, and often before it wrote down what it gave this container so far
            if self.dice.roll(2) == 0 {
                let key = (pod.reference.name.to_string(), container.name.clone());
                for (resource, ids) in self.kubelet.held.remove(&key).into_iter().flatten() {
                    // those of an init container stay with it
                    let lent = ids.iter().filter(|id| reuse.contains(*id));
                    let lent: BTreeSet<String> = lent.cloned().collect();
                    let freed = ids.into_iter().filter(|id| !lent.contains(id));
                    self.kubelet.free.get_mut(&resource).unwrap().extend(freed);
                }
            }
            return Err(End::CutShort);
        }
        let key = (pod.reference.name.to_string(), container.name.clone());
        if *resource == Resource::Core {
            let devices: Vec<DeviceId> = answer.grant.devices().cloned().collect();
            if !self.kubelet.unasked && !self.trouble.silent {
                let ids = Ids::new(chosen.clone());
                let named: BTreeSet<&str> = ids.cards().into_keys().collect();
                assert_eq!(named, devices.iter().map(|d| d.as_str()).collect(), "ids name the cards");
            }
            self.given.insert(key.clone(), devices);
            self.ceilings.insert(key.clone(), answer.limit);
        }
        for id in &chosen {
            self.kubelet.free.get_mut(resource).unwrap().remove(id);
        }
        self.kubelet.held.entry(key).or_default().insert(resource.clone(), chosen.clone());
        Ok(chosen)
    }

    fn run(&mut self) {
        let mut order: Vec<usize> = (0..self.pods.len()).collect();
        self.dice.shuffle(&mut order);
        let mut cuts = 0;
        while let Some(at) = order.pop() {
            let (pod, _) = self.pods[at].clone();
            match self.admit(&pod) {
                End::Admitted => {}
                End::Rejected => {
                    self.pods[at].1 = true;
                    self.kubelet.release(&pod.reference.name);
                }
                End::CutShort => {
                    // all pods come again, in any order, those that have everything as well
                    cuts += 1;
                    self.kubelet.present.clear();
                    order = (0..self.pods.len()).filter(|at| !self.pods[*at].1).collect();
                    self.dice.shuffle(&mut order);
                    self.trouble.restarts &= cuts < 5;
                }
            }
            if self.dice.roll(3) == 0 {
                self.compare(false);
            }
        }
        self.refresh();
        self.compare(true);
    }

    /// What the containers have, the records, and kubelet's books agree.
    fn check(&self) {
        let keys = Keys::default();
        let corrections = self.claims.corrections(&keys);
        let view = self.claims.view();
        let mut truth = Vec::new();
        for (pod, _) in self.pods.iter().filter(|(_, ended)| !ended) {
            let shown = view.iter().find(|v| v.pod.uid == pod.uid).expect("a pod that runs is known");
            let lasting = pod.request.containers.iter().any(|c| c.kind != ContainerKind::Init);
            for container in &shown.containers {
                let devices: Vec<DeviceId> = container.grant.devices().cloned().collect();
                let key = (pod.reference.name.to_string(), container.grant.container.clone());
                assert_eq!(self.given.get(&key), Some(&devices), "environment and truth of {key:?}");
                let own = pod.record.as_ref().and_then(|record| record.limit);
                if !self.trouble.silent {
                    assert_eq!(self.ceilings.get(&key), Some(&own), "limits of {key:?}");
                }
                let core = self.kubelet.held[&key].get(&Resource::Core).cloned().unwrap_or_default();
                if container.grant.kind != ContainerKind::Init && !core.is_empty() {
                    let holding = self.claims.holding(&Ids::new(core));
                    let held = |name: &ContainerName| holding.iter().find(|held| held.key.container == *name);
                    assert!(holding.iter().all(|held| held.key.pod == pod.uid), "kubelet's ids are one pod's");
                    let limit = held(&container.grant.container).map(|held| held.limit);
                    assert_eq!(limit, Some(own), "limits at its start");
                }
            }
            truth.push(Plan { grants: shown.containers.iter().map(|c| c.grant.clone()).collect() });
            let correction = corrections.iter().find(|c| c.uid == pod.uid);
            let mut annotations = pod.record.as_ref().map(|r| annotation::write(r, &keys)).unwrap();
            annotations.extend(correction.map(|c| c.annotations.clone()).unwrap_or_default());
            assert!(!lasting || annotation::confirmed(&annotations, &keys), "confirmed");
            match annotation::read(&annotations, &keys, &pod.request) {
                Record::Placed(placement) => assert_eq!(Some(&placement.plan), truth.last(), "record and truth"),
                other => panic!("{other:?}"),
            }
            if !self.trouble.silent {
                assert_eq!(
                    truth.last(),
                    pod.record.as_ref().map(|record| &record.plan),
                    "as the extender placed it"
                );
            }
        }
        // guesses for pods that fail between their own calls can leave a twin's answer on the wrong side of an
        // exchange; that is recorded as it is, which is what the checks above say
        let guessed = self.trouble.silent && self.trouble.rejects;
        assert!(guessed || fits(truth.iter()), "no card is given twice");
    }
}

fn burst(shapes: &[Vec<Shape>], chance: Vec<u32>, trouble: Trouble) {
    let mut burst = Burst::new(shapes, chance, trouble);
    burst.run();
    burst.check();
}

/// kubelet does not list ordinary init containers: where it must be guessed whose one was, it stays unknown.
fn without_init(shapes: &[Vec<Shape>]) -> Vec<Vec<Shape>> {
    let lasting = |(kind, core, memory): &Shape| match kind {
        ContainerKind::Init => (ContainerKind::Sidecar, *core, *memory),
        kind => (*kind, *core, *memory),
    };
    shapes.iter().map(|shape| shape.iter().map(lasting).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kubelets_list_names_the_pod_whatever_else_waits_fails_or_restarts(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64),
        rejects in any::<bool>(), restarts in any::<bool>(),
    ) {
        burst(&shapes, chance, Trouble { silent: false, rejects, restarts });
    }

    #[test]
    fn without_kubelets_list_pods_that_cannot_be_mistaken_get_what_is_recorded(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64),
    ) {
        burst(&without_init(&shapes), chance, Trouble { silent: true, ..Trouble::default() });
    }

    #[test]
    fn pods_that_kubelet_rejects_cost_no_other_its_card(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64),
    ) {
        burst(&without_init(&shapes), chance, Trouble { silent: true, rejects: true, ..Trouble::default() });
    }
}
