//! Bursts of pods with shares by count, through a model of kubelet's rules: with ids that kubelet takes against
//! advice, restarts of the plugin and of kubelet, pods without a placement, and edited annotations.

use proptest::prelude::*;

use super::super::dice::{Dice, schedules};
use super::super::transitions::{Operation, States};
use super::*;

/// What goes wrong besides the order of events.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    /// kubelet takes other ids than it was advised to (its Topology Manager does).
    disobeys: bool,
    /// Plugin and kubelet restart at any call.
    restarts: bool,
    /// kubelet does not always give its list.
    silent: bool,
    /// Some pods have no record.
    bare: bool,
    /// Pods without a placement are on the node besides those that fill it.
    strangers: bool,
    /// Annotations of pods are edited at any time.
    edits: bool,
}

struct World {
    trouble: Trouble,
    dice: Dice,
    allocations: Allocations,
    pods: Vec<Pod>,
    /// Pods whose annotations cannot be read.
    spoiled: BTreeSet<PodUid>,
    /// Pods that kubelet rejected.
    over: BTreeSet<String>,
    free: BTreeSet<String>,
    held: BTreeMap<(String, ContainerName), Vec<String>>,
    present: BTreeSet<String>,
}

enum End {
    Admitted,
    /// kubelet has too few ids left.
    Rejected,
    CutShort,
}

impl World {
    fn new(shapes: &[Vec<(ContainerKind, u32)>], chance: Vec<u32>, trouble: Trouble) -> Self {
        let mut dice = Dice::new(chance);
        let mut left = vec![SHARES; CARDS as usize];
        let mut pods = Vec::new();
        for (at, shape) in shapes.iter().enumerate() {
            let request = counted(shape);
            if trouble.strangers && dice.roll(3) == 0 {
                pods.push(pod(&format!("s{at}"), request.clone(), None));
            }
            let first = dice.roll(CARDS as usize);
            let Some(plan) = place(&mut left, &request, first) else { continue };
            let bare = trouble.bare && dice.roll(3) == 0;
            let placement = Placement::new("n", at as u64, plan);
            pods.push(pod(&format!("p{at}"), request, (!bare).then_some(placement)));
        }
        let mut allocations = Allocations::default();
        allocations.set_cards(offered());
        pods.iter().filter(|_| dice.roll(4) > 0).for_each(|pod| allocations.observe(pod.clone()));
        let free = (0..CARDS).flat_map(|card| ids(card, 0..SHARES)).collect();
        let (spoiled, over) = (BTreeSet::new(), BTreeSet::new());
        Self {
            trouble,
            dice,
            allocations,
            pods,
            spoiled,
            over,
            free,
            held: BTreeMap::new(),
            present: BTreeSet::new(),
        }
    }

    fn list(&self) -> Listing {
        let lasting = |pod: &Pod, name: &ContainerName| {
            pod.request.containers.iter().any(|c| c.name == *name && c.kind != ContainerKind::Init)
        };
        let held = self.held.iter().filter_map(|((name, container), ids)| {
            let pod = self.pods.iter().find(|pod| *pod.reference.name == **name)?;
            let listed = self.present.contains(name) && lasting(pod, container);
            listed.then(|| ContainerResources { container: container.clone(), ..has(pod, ids) })
        });
        Listing {
            pods: self.present.iter().map(|name| PodRef::new("ns", name.as_str())).collect(),
            held: held.collect(),
            other_domain: None,
        }
    }

    fn compare(&mut self, inside: bool) {
        let question = self.allocations.kubelet.question(inside);
        let before = States::of(&self.allocations);
        let found = self.allocations.reconcile(&self.list(), question);
        let exchanged = found.swaps.into_iter().flat_map(|(a, b)| [a.pod, b.pod]).collect();
        before.lead_to(&self.allocations, Operation::List, &exchanged);
    }

    fn seen(&self, pod: &Pod) -> Seen {
        if self.spoiled.contains(&pod.uid) {
            let (uid, reference) = (pod.uid.clone(), pod.reference.clone());
            let other = Bystander { uid, reference, runtime_ids: BTreeMap::new() };
            return Seen::Other { pod: other, stage: pod.stage };
        }
        Seen::Claimant(Box::new(pod.clone()))
    }

    fn refresh(&mut self) {
        let all: Vec<Seen> = self.pods.iter().map(|pod| self.seen(pod)).collect();
        all.into_iter().for_each(|seen| self.allocations.see(seen));
    }

    /// Another client writes nonsense on a pod, or removes its record.
    fn edit(&mut self) {
        if !self.trouble.edits || self.dice.roll(4) > 0 {
            return;
        }
        let (at, way) = (self.dice.roll(self.pods.len()), self.dice.roll(4));
        let pod = &mut self.pods[at];
        match way {
            0 => pod.record = None,
            1 => drop(self.spoiled.insert(pod.uid.clone())),
            2 => pod.confirmed ^= true,
            _ => drop(self.spoiled.remove(&pod.uid)),
        }
        if self.dice.roll(2) == 0 {
            let seen = self.seen(&self.pods[at]);
            self.allocations.see(seen);
        }
    }

    /// kubelet rejects a pod and frees what it had given it.
    fn reject(&mut self, name: &str) {
        self.present.remove(name);
        self.over.insert(name.to_owned());
        let held = std::mem::take(&mut self.held);
        for (key, ids) in held {
            if key.0 == name {
                self.free.extend(ids);
            } else {
                self.held.insert(key, ids);
            }
        }
        let rejected = self.pods.iter_mut().find(|pod| *pod.reference.name == *name).unwrap();
        rejected.stage = Stage::Ended;
    }

    fn learn(&mut self, units: u64) {
        let silent = self.trouble.silent && self.dice.roll(3) == 0;
        if !silent {
            self.compare(true);
        }
        if !self.allocations.certain(&resource(), units) {
            self.refresh();
            if !silent {
                self.compare(true);
            }
        }
    }

    fn restart(&mut self) {
        if self.trouble.restarts && self.dice.roll(9) == 0 {
            self.allocations = Allocations::default();
            self.allocations.set_cards(offered());
            self.refresh();
        }
    }

    fn choose(&mut self, size: usize, reusable: &BTreeSet<String>) -> Option<Vec<String>> {
        let mut chosen: Vec<String> = reusable.iter().cloned().collect();
        self.dice.shuffle(&mut chosen);
        chosen.truncate(size);
        let mut rest: Vec<String> = self.free.iter().cloned().collect();
        self.dice.shuffle(&mut rest);
        if !self.trouble.disobeys && rest.len() > size - chosen.len() {
            for (card, count) in self.allocations.preferred_devices(&resource(), size as u64).cards {
                let here = |id: &&String| ids::card(id) == Some(card.as_str());
                let has = chosen.iter().filter(here).count();
                let more = rest.iter().filter(here).take((count.unwrap() as usize).saturating_sub(has)).cloned();
                chosen.extend(more.collect::<Vec<_>>());
            }
            chosen.truncate(size);
            rest.retain(|id| !chosen.contains(id));
        }
        let missing = size - chosen.len();
        chosen.extend(rest.into_iter().take(missing));
        assert!(chosen.len() == size || self.trouble.strangers, "the plans fit, so there are enough ids");
        (chosen.len() == size).then_some(chosen)
    }

    fn admit(&mut self, pod: &Pod) -> End {
        let name = pod.reference.name.to_string();
        self.present.insert(name.clone());
        let mut reusable = BTreeSet::new();
        for container in &pod.request.containers {
            let key = (name.clone(), container.name.clone());
            let chosen = match self.held.get(&key) {
                Some(held) => held.clone(),
                None => {
                    let units = u64::from(count(container));
                    self.restart();
                    self.edit();
                    self.learn(units);
                    let Some(chosen) = self.choose(count(container) as usize, &reusable) else {
                        return End::Rejected;
                    };
                    self.restart();
                    if !self.allocations.certain(&resource(), units) {
                        self.learn(units);
                    }
                    let before = States::of(&self.allocations);
                    let taker = self.allocations.take_counted(&resource(), Ids::new(chosen.clone()));
                    before.lead_to(&self.allocations, Operation::Allocate, &BTreeSet::new());
                    let taker = taker.map(|(key, _)| key.pod);
                    // ids of a pod whose annotations could never be read belong to no known container
                    let nobody = taker.is_none() && self.spoiled.contains(&pod.uid);
                    if !self.trouble.silent && !nobody {
                        assert_eq!(taker, Some(pod.uid.clone()), "the pod is known, not guessed");
                    }
                    if self.trouble.restarts && self.dice.roll(9) == 0 {
                        return End::CutShort;
                    }
                    self.free.retain(|id| !chosen.contains(id));
                    self.held.insert(key, chosen.clone());
                    chosen
                }
            };
            match container.kind {
                ContainerKind::Init => reusable.extend(chosen),
                _ => reusable.retain(|id| !chosen.contains(id)),
            }
        }
        End::Admitted
    }

    fn run(&mut self) {
        let mut order: Vec<usize> = (0..self.pods.len()).collect();
        self.dice.shuffle(&mut order);
        let mut cuts = 0;
        while let Some(at) = order.pop() {
            let pod = self.pods[at].clone();
            match self.admit(&pod) {
                End::Admitted => {}
                End::Rejected => self.reject(&pod.reference.name),
                End::CutShort => {
                    cuts += 1;
                    self.present.clear();
                    let lives = |at: &usize| !self.over.contains(&*self.pods[*at].reference.name);
                    order = (0..self.pods.len()).filter(lives).collect();
                    self.dice.shuffle(&mut order);
                    self.trouble.restarts &= cuts < 5;
                }
            }
            if self.dice.roll(3) == 0 {
                self.compare(false);
            }
        }
        self.spoiled.clear();
        self.refresh();
        self.compare(true);
    }

    fn check(&self, began: Trouble) {
        // kubelet keeps an ended init container's ids for its pod, even where no other container of the pod uses
        // them: then a GPU has fewer left than planned, and a pod that was placed there gets another
        let of_init = |pod: &Pod| pod.request.containers.iter().any(|c| c.kind == ContainerKind::Init);
        let init = self.pods.iter().any(of_init);
        let mut taken: BTreeMap<DeviceId, u32> = BTreeMap::new();
        for pod in self.pods.iter().filter(|pod| !self.over.contains(&*pod.reference.name)) {
            let (record, confirmed) = recorded(&self.allocations, pod);
            let Record::Placed(placement) = record else { panic!("{}: {record:?}", pod.reference) };
            assert!(confirmed, "{}", pod.reference);
            for grant in placement.plan.grants.iter().filter(|grant| grant.kind != ContainerKind::Init) {
                let held = Ids::new(self.held[&(pod.reference.name.to_string(), grant.container.clone())].clone());
                let told: BTreeMap<&str, u64> =
                    devices(grant).iter().map(|one| (one.device.id.as_str(), u64::from(one.count))).collect();
                assert_eq!(told, held.cards(), "record and books of {}", pod.reference);
            }
            for hold in placement.plan.holds() {
                let Taken::Counted(counted, _) = hold.taken else { panic!() };
                *taken.entry(hold.device.id).or_default() += counted.count;
            }
            let steered = ![began.disobeys, began.silent, began.bare, began.restarts, began.strangers, began.edits]
                .contains(&true);
            if steered && !init {
                assert_eq!(
                    Some(&placement.plan),
                    pod.record.as_ref().map(|record| &record.plan),
                    "as it was placed"
                );
            }
        }
        // an init container's ids are known where kubelet's list named their pod
        if !began.silent && !began.restarts && !began.edits {
            assert!(taken.values().all(|count| *count <= SHARES), "{taken:?}");
        }
    }
}

/// Places a pod from GPU `first` on, as many shares of each GPU as are left.
fn place(left: &mut [u32], request: &GpuRequest, first: usize) -> Option<Plan> {
    let mut plan = Plan::default();
    for container in &request.containers {
        let mut devices = Vec::new();
        let mut missing = count(container);
        for step in 0..left.len() {
            let card = (first + step) % left.len();
            let fits = |more: u32| {
                let mut tried = plan.clone();
                tried.grants.push(grant(container, vec![shares(u32::try_from(card).unwrap(), more)]));
                let device = shares(u32::try_from(card).unwrap(), more).device;
                tried.holds().iter().filter(|hold| hold.device.id == device.id).all(|hold| match &hold.taken {
                    Taken::Counted(counted, _) => counted.count <= left[card],
                    _ => false,
                })
            };
            let more = (1..=missing).rev().find(|more| fits(*more)).unwrap_or_default();
            if more > 0 {
                devices.push(shares(u32::try_from(card).unwrap(), more));
                missing -= more;
            }
        }
        if missing > 0 {
            return None;
        }
        devices.sort_by_key(|one| one.device.index);
        plan.grants.push(grant(container, devices));
    }
    for hold in plan.holds() {
        if let Taken::Counted(counted, _) = hold.taken {
            left[hold.device.index as usize] -= counted.count;
        }
    }
    Some(plan)
}

fn shapes() -> impl Strategy<Value = Vec<Vec<(ContainerKind, u32)>>> {
    let early = prop_oneof![Just(ContainerKind::Init), Just(ContainerKind::Sidecar)];
    let early = prop::collection::vec((early, 1..=3u32), 0..=1);
    let apps = prop::collection::vec((Just(ContainerKind::App), 1..=6u32), 1..=2);
    prop::collection::vec((early, apps).prop_map(|(early, apps)| [early, apps].concat()), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: schedules(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_are_kubelets_books_whatever_happens(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64),
        disobeys in any::<bool>(), restarts in any::<bool>(), silent in any::<bool>(), bare in any::<bool>(),
        strangers in any::<bool>(), edits in any::<bool>(),
    ) {
        let trouble = Trouble { disobeys, restarts, silent, bare, strangers, edits };
        let mut world = World::new(&shapes, chance, trouble);
        world.run();
        world.check(trouble);
    }
}
