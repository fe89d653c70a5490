//! Bursts of pods through a model of kubelet's rules, with rejections, restarts of kubelet and of the plugin, pods
//! without a placement, edited annotations, late events, and lists that kubelet does not give. Whatever the order,
//! every container's environment and its record name the same GPUs, and so do its ids wherever kubelet asked for
//! advice.

mod audit;
mod found;
mod kubelet;
mod shapes;
mod subjects;

use proptest::prelude::*;

use self::kubelet::{Kubelet, Name};
use self::shapes::{apart, shapes, without_init};
use self::subjects::Subjects;
use super::dice::{Dice, schedules};
use super::transitions::{Operation, States};
use super::*;

/// What may go wrong besides the order.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// kubelet does not always give its list.
    silent: bool,
    /// kubelet rejects pods before and during their calls.
    rejects: bool,
    /// kubelet lists the pods that it rejected until their end is written, as versions before 1.34 do.
    old: bool,
    /// kubelet and the plugin are restarted between any two calls; where kubelet gives no list, the plugin alone.
    restarts: bool,
    /// Pods without a placement are on the node, of the same shapes as those with one.
    strangers: bool,
    /// Annotations of pods with a placement are edited at any time, and some pods end.
    edits: bool,
    /// The watch is late, and answers of the API server come late or not at all.
    late: bool,
}

/// How kubelet's admission of one pod ended.
#[derive(PartialEq)]
enum End {
    Admitted,
    Rejected,
    /// kubelet was restarted during it: the pod's turn comes again.
    CutShort,
}

struct Burst {
    trouble: Trouble,
    dice: Dice,
    allocations: Allocations,
    /// The answers that the plugin has saved.
    answers: Vec<AnsweredIds>,
    kubelet: Kubelet,
    subjects: Subjects,
    /// An answer of the API server that has not come.
    delayed: Option<Vec<Seen>>,
    /// The GPUs that each container was given.
    given: BTreeMap<Name, Vec<DeviceId>>,
    /// The ceiling that its limits were written with.
    ceilings: BTreeMap<Name, Option<Milli>>,
}

impl Burst {
    fn new(shapes: &[Vec<Shape>], chance: Vec<u32>, trouble: Trouble) -> Self {
        let mut dice = Dice::new(chance);
        let mut subjects = Subjects::default();
        let mut plans = Vec::new();
        for (at, shape) in shapes.iter().enumerate() {
            let request = request(shape);
            let name = format!("p{at}");
            if trouble.strangers && dice.roll(3) == 0 {
                let mut stranger = pod(&format!("s{at}"), request.clone(), None);
                if dice.roll(2) == 0 {
                    stranger.reference = PodRef::new("other", name.as_str());
                }
                subjects.add(stranger, None);
            }
            let first = u32::try_from(dice.roll(CARDS as usize)).unwrap();
            let Some(placement) = place(&plans, &request, at as u64, first) else { continue };
            // pods of the same shape may differ in their ceilings for bursts
            let limit = [None, Some(Milli(600)), Some(Milli::WHOLE)][dice.roll(3)];
            let request = GpuRequest { limit, ..request };
            let placement = Placement { limit, ..placement };
            if trouble.restarts && apart(&request, &placement.plan) {
                continue;
            }
            plans.push(placement.plan.clone());
            subjects.add(pod(&name, request, Some(placement.clone())), Some(placement));
        }
        let mut allocations = Allocations::default();
        allocations.set_cards(cards());
        // some pods are seen by the watch before kubelet asks, the others only when the API server is asked
        let some = dice.roll(subjects.unheard() + 1);
        subjects.tell(&mut allocations, some);
        Self {
            trouble,
            dice,
            allocations,
            answers: Vec::new(),
            kubelet: Kubelet::new(),
            subjects,
            delayed: None,
            given: BTreeMap::new(),
            ceilings: BTreeMap::new(),
        }
    }

    /// The API server is asked. Its answer may come late, and the watch has shown later changes by then.
    fn refresh(&mut self) {
        let before = States::of(&self.allocations);
        self.hear();
        before.lead_to(&self.allocations, Operation::News, &BTreeSet::new());
    }

    fn hear(&mut self) {
        let before = self.allocations.known();
        let mut answer = self.subjects.answer();
        if self.trouble.late && self.dice.roll(4) == 0 {
            answer = self.delayed.replace(answer).unwrap_or_default();
            answer.into_iter().for_each(|seen| self.allocations.see(seen));
            return;
        }
        for uid in before.iter().filter(|uid| !answer.iter().any(|seen| seen.uid() == *uid)) {
            self.allocations.forget(uid);
        }
        answer.into_iter().for_each(|seen| self.allocations.see(seen));
    }

    fn compare(&mut self, within: bool) {
        let question = self.allocations.kubelet.question(within);
        let before = States::of(&self.allocations);
        let found = self.allocations.reconcile(&self.kubelet.list(self.subjects.pods()), question);
        let exchanged = found.swaps.into_iter().flat_map(|(a, b)| [a.pod, b.pod]).collect();
        before.lead_to(&self.allocations, Operation::List, &exchanged);
    }

    /// What the service does on a call.
    fn learn(&mut self, resource: &Resource, units: u64) {
        let silent = self.trouble.silent && self.dice.roll(3) == 0;
        if !silent {
            self.compare(true);
        }
        if !self.allocations.certain(resource, units) {
            self.refresh();
            if !silent {
                self.compare(true);
            }
        }
    }

    fn restart_plugin(&mut self) {
        self.subjects.lose();
        self.allocations = Allocations::default();
        self.allocations.set_cards(cards());
        self.allocations.answers.restore(self.answers.clone());
        self.delayed = None;
        self.subjects.list(&mut self.allocations);
    }

    /// What happens between any two calls.
    fn between(&mut self) {
        if self.trouble.restarts && self.dice.roll(9) == 0 {
            self.restart_plugin();
        }
        if self.trouble.restarts && self.dice.roll(6) == 0 {
            // one of the records that are to be written is
            let corrections = self.allocations.corrections(&Keys::default());
            if !corrections.is_empty() {
                self.subjects.write(&corrections[self.dice.roll(corrections.len())]);
            }
        }
        if self.trouble.edits && self.dice.roll(6) == 0 {
            let at = self.dice.roll(self.subjects.all.len());
            // a pod that the plugin has never seen is not served after its record was removed
            let heard = self.allocations.known().contains(&self.subjects.all[at].pod.uid);
            if heard && self.subjects.all[at].placed.is_some() {
                self.subjects.edit(at, &mut self.dice);
            }
        }
        let some = if self.trouble.late { self.dice.roll(3) } else { usize::MAX };
        if self.dice.roll(4) > 0 {
            self.subjects.tell(&mut self.allocations, some);
        }
    }

    fn allocate(&mut self, resource: &Resource, chosen: &[String]) -> Result<Answer, Refusal> {
        let ids = Ids::new(chosen.to_vec());
        let known =
            self.allocations.kubelet.advised(resource, &ids) && self.allocations.certain(resource, ids.len());
        if !known {
            self.learn(resource, ids.len());
        }
        let answer = match self.ask(resource, &ids) {
            Err(refusal) if !refusal.settled() => {
                self.refresh();
                self.compare(true);
                self.ask(resource, &ids)
            }
            answer => answer,
        };
        if answer.is_ok() && *resource == Resource::Core {
            self.answers = self.allocations.answers.all().to_vec();
        }
        answer
    }

    fn ask(&mut self, resource: &Resource, ids: &Ids) -> Result<Answer, Refusal> {
        let before = States::of(&self.allocations);
        let answer = self.allocations.allocate(resource, ids.clone());
        before.lead_to(&self.allocations, Operation::Allocate, &BTreeSet::new());
        answer
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
        self.learn(resource, size as u64);
        self.kubelet.unasked |= self.trouble.late && !self.allocations.certain(resource, size as u64);
        let chosen = prefer(&self.allocations, resource, &offered, &again, size);
        self.allocations.kubelet.advise(resource, &Ids::new(chosen.iter().cloned()));
        assert_eq!(chosen.len(), size, "a preference is complete");
        assert!(again.iter().all(|id| chosen.contains(id)), "required ids are kept");
        assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), size, "no id twice");
        assert!(chosen.iter().all(|id| offered.contains(id)), "only what was offered");
        Some(chosen)
    }

    fn admit(&mut self, at: usize) -> End {
        let pod = self.subjects.all[at].pod.clone();
        self.kubelet.present.insert(pod.reference.clone());
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
            let key = (pod.reference.clone(), container.name.clone());
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
                        match self.call(at, container, &resource, &reuse) {
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
        at: usize,
        container: &ContainerRequest,
        resource: &Resource,
        reuse: &BTreeSet<String>,
    ) -> Result<Vec<String>, End> {
        self.between();
        let units = amount(container, resource);
        let (pod, placed) = (self.subjects.all[at].pod.clone(), self.subjects.all[at].placed.clone());
        let Some(chosen) = self.choose(resource, usize::try_from(units).unwrap(), reuse) else {
            // mixed sets of init containers can leave kubelet short, and nothing checks whether a stranger fits;
            // kubelet itself fails such a pod
            assert!(self.kubelet.unasked || placed.is_none());
            return Err(End::Rejected);
        };
        if self.trouble.restarts && self.dice.roll(12) == 0 {
            self.restart_plugin();
        }
        let answer = match self.allocate(resource, &chosen) {
            Ok(answer) => answer,
            // guesses: refusing is the safe side where a GPU would be given twice
            Err(Refusal::Overcommitted { .. } | Refusal::Ambiguous { .. }) if self.trouble.silent => {
                return Err(End::Rejected);
            }
            // the plugin does not know yet that the pod before it was rejected
            Err(Refusal::Ambiguous { .. }) if self.trouble.old && self.trouble.rejects => {
                return Err(End::Rejected);
            }
            // the API server was asked and has not shown the pod
            Err(Refusal::NobodyWaits { .. })
                if self.trouble.late && !self.allocations.known().contains(&pod.uid) =>
            {
                return Err(End::Rejected);
            }
            Err(_) if placed.is_none() || self.subjects.all[at].lost => return Err(End::Rejected),
            Err(refusal) => panic!("a bound pod is never refused: {refusal}"),
        };
        assert!(placed.is_some() || *resource == Resource::Memory, "nobody placed {}", pod.reference);
        if !self.trouble.silent {
            assert_eq!(answer.key.pod, pod.uid, "the pod is known, not guessed");
        }
        let key = (pod.reference.clone(), container.name.clone());
        if self.trouble.restarts && !self.trouble.silent && self.dice.roll(9) == 0 {
            // kubelet ends before it has the answer, and often before it wrote down what it gave this container so
            // far
            if self.dice.roll(2) == 0 {
                self.kubelet.lose(&key);
            }
            return Err(End::CutShort);
        }
        if *resource == Resource::Core {
            let devices: Vec<DeviceId> = answer.grant.gpus.ids().cloned().collect();
            if !self.kubelet.unasked && !self.trouble.silent {
                let ids = Ids::new(chosen.clone());
                let named: BTreeSet<&str> = ids.cards().into_keys().collect();
                assert_eq!(named, devices.iter().map(|d| d.as_str()).collect(), "ids name the cards");
            }
            if !self.trouble.silent
                && let Some(before) = self.given.get(&key)
            {
                assert_eq!(*before, devices, "what runs is not given other cards");
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

    /// A pod ends, rejected by kubelet or by itself. Its status may be written later.
    fn end(&mut self, at: usize) {
        let pod = self.subjects.all[at].pod.reference.clone();
        self.subjects.all[at].over = true;
        self.kubelet.release(&pod, self.trouble.old);
        self.given.retain(|(name, _), _| *name != pod);
        if !self.trouble.old {
            self.subjects.change(at, |subject| subject.pod.stage = Stage::Ended);
        }
    }

    fn run(&mut self) {
        let mut order: Vec<usize> = (0..self.subjects.all.len()).collect();
        self.dice.shuffle(&mut order);
        let mut cuts = 0;
        while let Some(at) = order.pop() {
            match self.admit(at) {
                End::Admitted => {}
                End::Rejected => self.end(at),
                End::CutShort => {
                    // all pods come again, in any order, those that have everything as well
                    cuts += 1;
                    self.kubelet.present.clear();
                    self.allocations.kubelet.disconnected();
                    if self.dice.roll(3) == 0 && !self.trouble.rejects {
                        self.kubelet.forget();
                        self.kubelet.unasked = true;
                    }
                    order = (0..self.subjects.all.len()).filter(|at| !self.subjects.all[*at].over).collect();
                    self.dice.shuffle(&mut order);
                    self.trouble.restarts &= cuts < 5;
                }
            }
            if self.trouble.edits && self.dice.roll(4) == 0 {
                let admitted = |at: &usize| !order.contains(at) && !self.subjects.all[*at].over;
                let ends: Vec<usize> = (0..self.subjects.all.len()).filter(admitted).collect();
                if !ends.is_empty() {
                    let at = ends[self.dice.roll(ends.len())];
                    self.end(at);
                }
            }
            if self.trouble.old && self.dice.roll(3) == 0 {
                self.write_ends();
            }
            if self.dice.roll(3) == 0 {
                self.compare(false);
                self.nothing_is_forgotten();
            }
        }
        self.write_ends();
        self.subjects.mend();
        self.trouble.late = false;
        self.subjects.tell(&mut self.allocations, usize::MAX);
        self.refresh();
        self.compare(true);
    }

    fn write_ends(&mut self) {
        for at in 0..self.subjects.all.len() {
            if self.subjects.all[at].over && self.subjects.all[at].pod.stage != Stage::Ended {
                let pod = self.subjects.all[at].pod.reference.clone();
                self.kubelet.present.remove(&pod);
                self.subjects.change(at, |subject| subject.pod.stage = Stage::Ended);
            }
        }
    }
}

fn burst(shapes: &[Vec<Shape>], chance: Vec<u32>, trouble: Trouble) {
    let mut burst = Burst::new(shapes, chance, trouble);
    burst.run();
    burst.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: schedules(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kubelets_list_names_the_pod_whatever_else_waits_fails_or_restarts(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64),
        rejects in any::<bool>(), restarts in any::<bool>(), strangers in any::<bool>(), late in any::<bool>(),
    ) {
        burst(&shapes, chance, Trouble { rejects, restarts, strangers, late, ..Trouble::default() });
    }

    #[test]
    fn what_is_written_on_a_pod_changes_nothing_of_what_it_has(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64),
        rejects in any::<bool>(), restarts in any::<bool>(), strangers in any::<bool>(), late in any::<bool>(),
    ) {
        burst(&shapes, chance, Trouble { edits: true, rejects, restarts, strangers, late, ..Trouble::default() });
    }

    #[test]
    fn rejected_pods_on_kubelets_list_cost_no_other_its_card(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64),
        strangers in any::<bool>(), late in any::<bool>(),
    ) {
        burst(&shapes, chance, Trouble { old: true, rejects: true, strangers, late, ..Trouble::default() });
    }

    #[test]
    fn without_kubelets_list_pods_that_cannot_be_mistaken_get_what_is_recorded(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64),
    ) {
        burst(&without_init(&shapes), chance, Trouble { silent: true, ..Trouble::default() });
    }

    #[test]
    fn records_are_mended_where_the_plugin_ends_between_two_writes(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64),
    ) {
        burst(&without_init(&shapes), chance, Trouble { silent: true, restarts: true, ..Trouble::default() });
    }

    #[test]
    fn pods_that_kubelet_rejects_cost_no_other_its_card(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64), strangers in any::<bool>(),
    ) {
        burst(&without_init(&shapes), chance, Trouble { silent: true, rejects: true, strangers, ..Trouble::default() });
    }
}
