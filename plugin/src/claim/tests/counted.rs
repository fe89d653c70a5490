//! Shares by count: kubelet decides which ids a container has, and records follow.

use std::collections::BTreeSet;

use kerf::plan::Form;
use kerf::shares::{Arrangement, Counted, PerCard};
use proptest::prelude::*;

use super::dice::Dice;
use super::*;
use crate::claim::preference::Wish;

const NAME: &str = "example.com/shared";
/// Shares of each card.
const SHARES: u32 = 4;

fn resource() -> Resource {
    Resource::Counted(NAME.into())
}

fn offered() -> Vec<Device> {
    let offers = BTreeMap::from([(NAME.into(), PerCard::new(SHARES).unwrap())]);
    cards().into_iter().map(|card| Device { offers: offers.clone(), ..card }).collect()
}

/// Containers by kind and number of shares.
fn counted(shape: &[(ContainerKind, u32)]) -> GpuRequest {
    let container = |(at, (kind, count)): (usize, &(ContainerKind, u32))| ContainerRequest {
        name: format!("c{at}").as_str().into(),
        kind: *kind,
        position: u32::try_from(at).unwrap(),
        ask: Ask::Counted(Counted { resource: NAME.into(), count: *count }),
    };
    GpuRequest {
        containers: shape.iter().enumerate().map(container).collect(),
        limit: None,
        policy: None,
        isolation: None,
        arrangement: Arrangement::Any,
        priority: 0,
    }
}

fn count(container: &ContainerRequest) -> u32 {
    match &container.ask {
        Ask::Counted(counted) => counted.count,
        _ => 0,
    }
}

fn slice(card: u32, count: u32) -> Slice {
    let compute = PerCard::new(SHARES).unwrap().compute_of(count);
    Slice {
        device: format!("GPU-{card}").as_str().into(),
        index: card,
        share: Share { compute, memory: Mib(0) },
        count,
    }
}

fn grant(container: &ContainerRequest, slices: Vec<Slice>) -> Grant {
    Grant {
        container: container.name.clone(),
        kind: container.kind,
        position: container.position,
        form: Form::Counted(NAME.into()),
        slices,
    }
}

/// A pod of one container on these cards; on none: without a record.
fn on(name: &str, cards: &[(u32, u32)], asks: u32, time: u64) -> Pod {
    let request = counted(&[(ContainerKind::App, asks)]);
    let slices: Vec<Slice> = cards.iter().map(|(card, count)| slice(*card, *count)).collect();
    let plan = Plan { grants: vec![grant(&request.containers[0], slices)] };
    let record = (!cards.is_empty()).then(|| Placement { node: "n".into(), time, limit: None, plan });
    pod(name, request, record)
}

fn ids(card: u32, range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|k| unit(&format!("GPU-{card}"), k)).collect()
}

fn has(pod: &Pod, ids: &[String]) -> Held {
    let ids = BTreeMap::from([(resource(), Ids::new(ids.to_vec()))]);
    Held { pod: pod.reference.clone(), container: "c0".into(), ids }
}

fn with(pods: &[&Pod]) -> Claims {
    let mut claims = Claims::default();
    claims.set_cards(offered());
    pods.iter().for_each(|pod| claims.observe((*pod).clone()));
    claims
}

/// What a pod's record says once the corrections are written.
fn recorded(claims: &Claims, pod: &Pod) -> (Record, bool) {
    let keys = Keys::default();
    let mut annotations = pod.record.as_ref().map(|record| annotation::write(record, &keys)).unwrap_or_default();
    let correction = claims.corrections(&keys).into_iter().find(|correction| correction.uid == pod.uid);
    annotations.extend(correction.map(|correction| correction.annotations).unwrap_or_default());
    (annotation::read(&annotations, &keys, &pod.request), annotation::confirmed(&annotations, &keys))
}

fn slices(claims: &Claims, pod: &Pod) -> Vec<(u32, u32)> {
    match recorded(claims, pod).0 {
        Record::Placed(placement) => {
            placement.plan.grants[0].slices.iter().map(|slice| (slice.index, slice.count)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn kubelet_is_steered_to_the_recorded_cards_of_the_pod_that_it_admits() {
    let (first, second) = (on("a", &[(0, 2)], 2, 1), on("b", &[(2, 1), (3, 1)], 2, 2));
    let mut claims = with(&[&first, &second]);
    within(&mut claims, &listing([], &[&second]));
    assert!(claims.certain(&resource(), 2));
    let cards = vec![("GPU-2".into(), 1), ("GPU-3".into(), 1)];
    assert_eq!(claims.wish(&resource(), 2), Wish { cards, closed: BTreeSet::new() });
    assert_eq!(claims.wish(&resource(), 3), Wish::default());
}

#[test]
fn a_record_follows_what_kubelet_gave_and_is_confirmed() {
    let pod = on("a", &[(0, 2)], 2, 1);
    let mut claims = with(&[&pod]);
    within(&mut claims, &listing([], &[&pod]));
    let other = [ids(1, 0..1), ids(2, 3..4)].concat();
    assert!(claims.take_counted(&resource(), Ids::new(other.clone())).is_some());
    assert_eq!((slices(&claims, &pod), recorded(&claims, &pod).1), (vec![(1, 1), (2, 1)], false));
    within(&mut claims, &listing([has(&pod, &other)], &[]));
    assert_eq!((slices(&claims, &pod), recorded(&claims, &pod).1), (vec![(1, 1), (2, 1)], true));
    // a later life knows it from kubelet's list alone
    let mut later = with(&[&pod]);
    assert_eq!(within(&mut later, &listing([has(&pod, &other)], &[])).moved.len(), 1);
    assert_eq!((slices(&later, &pod), recorded(&later, &pod).1), (vec![(1, 1), (2, 1)], true));
}

#[test]
fn a_pod_that_took_the_cards_of_one_that_waits_gives_it_its_own() {
    let (first, second) = (on("a", &[(0, 2)], 2, 1), on("b", &[(1, 2)], 2, 2));
    let mut claims = with(&[&first, &second]);
    within(&mut claims, &listing([has(&first, &ids(1, 0..2))], &[&second]));
    assert_eq!((slices(&claims, &first), slices(&claims, &second)), (vec![(1, 2)], vec![(0, 2)]));
    assert_eq!(claims.wish(&resource(), 2).cards, [("GPU-0".into(), 2)]);
}

#[test]
fn a_pod_without_a_record_gets_that_of_what_it_holds() {
    let shape = [(ContainerKind::Init, 3), (ContainerKind::Sidecar, 1), (ContainerKind::App, 2)];
    let bare = pod("a", counted(&shape), None);
    let mut claims = with(&[&bare]);
    let held =
        |at: usize, ids: Vec<String>| Held { container: format!("c{at}").as_str().into(), ..has(&bare, &ids) };
    within(&mut claims, &listing([held(1, ids(0, 0..1))], &[]));
    assert_eq!(recorded(&claims, &bare).0, Record::Absent, "not all of it is known");
    let all = [held(1, ids(0, 0..1)), held(2, [ids(0, 1..2), ids(1, 0..1)].concat())];
    within(&mut claims, &listing(all, &[]));
    let (Record::Placed(placement), true) = recorded(&claims, &bare) else { panic!() };
    assert_eq!((placement.node.as_str(), placement.time), ("n", bare.created));
    let all: Vec<Vec<(u32, u32)>> = placement
        .plan
        .grants
        .iter()
        .map(|grant| grant.slices.iter().map(|slice| (slice.index, slice.count)).collect())
        .collect();
    assert_eq!(
        all,
        [vec![(0, 2), (1, 1)], vec![(0, 1)], vec![(0, 1), (1, 1)]],
        "the init container's is what they have"
    );
}

#[test]
fn ids_that_name_no_card_leave_the_record_as_it_is() {
    let (pod, bare) = (on("a", &[(0, 2)], 2, 1), on("b", &[], 1, 2));
    let mut claims = with(&[&pod, &bare]);
    let lost = ["nvidia9-_-1".to_owned(), "GPU-9::0".to_owned()];
    within(&mut claims, &listing([has(&pod, &lost), has(&bare, &lost[..1])], &[]));
    assert_eq!((slices(&claims, &pod), recorded(&claims, &pod).1), (vec![(0, 2)], true));
    assert_eq!(recorded(&claims, &bare).0, Record::Absent);
}

#[test]
fn a_card_with_undivided_memory_takes_no_share_of_memory() {
    let (shared, divided) = (on("a", &[(0, 1)], 1, 1), share("b", 20, 2, 0, 2));
    let mut claims = with(&[&shared, &divided]);
    within(&mut claims, &listing([has(&shared, &ids(0, 0..1))], &[&divided]));
    let refusal = claims.allocate(&Resource::Core, core(0, 0..20)).unwrap_err();
    assert_eq!(refusal.code(), "overcommitted");
    let bare = on("c", &[], 1, 3);
    claims.observe(bare);
    assert_eq!(claims.wish(&resource(), 1).closed, BTreeSet::from(["GPU-0".into()]));
}

#[test]
fn equal_texts_of_two_resources_are_different_ids() {
    let (shared, divided) = (on("a", &[(0, 1)], 1, 1), share("b", 1, 1, 1, 2));
    let mut claims = with(&[&shared, &divided]);
    claims.allocate(&Resource::Core, core(1, 0..1)).unwrap();
    claims.take_counted(&resource(), Ids::new(ids(1, 0..1)));
    let holding = claims.holding(&core(1, 0..1));
    assert_eq!(holding.iter().map(|answer| answer.key.pod.as_str()).collect::<Vec<_>>(), ["uid-b"]);
    let held = Held {
        ids: BTreeMap::from([(Resource::Core, core(1, 0..1)), (Resource::Memory, core(1, 0..1))]),
        ..has(&divided, &[])
    };
    within(&mut claims, &listing([held, has(&shared, &ids(1, 0..1))], &[]));
    let divided = claims.view().into_iter().find(|view| view.pod.uid == divided.uid).unwrap();
    assert_eq!(divided.containers[0].core, core(1, 0..1));
    assert_eq!(divided.containers[0].counted, Ids::default());
}

/// What goes wrong besides the order of things.
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
}

struct World {
    trouble: Trouble,
    dice: Dice,
    claims: Claims,
    pods: Vec<Pod>,
    free: BTreeSet<String>,
    held: BTreeMap<(String, ContainerName), Vec<String>>,
    present: BTreeSet<String>,
}

enum End {
    Admitted,
    CutShort,
}

impl World {
    fn new(shapes: &[Vec<(ContainerKind, u32)>], chance: Vec<u32>, trouble: Trouble) -> Self {
        let mut dice = Dice::new(chance);
        let mut left = vec![SHARES; CARDS as usize];
        let mut pods = Vec::new();
        for (at, shape) in shapes.iter().enumerate() {
            let request = counted(shape);
            let first = dice.roll(CARDS as usize);
            let Some(plan) = place(&mut left, &request, first) else { continue };
            let bare = trouble.bare && dice.roll(3) == 0;
            let placement = Placement { node: "n".into(), time: at as u64, limit: None, plan };
            pods.push(pod(&format!("p{at}"), request, (!bare).then_some(placement)));
        }
        let mut claims = Claims::default();
        claims.set_cards(offered());
        pods.iter().filter(|_| dice.roll(4) > 0).for_each(|pod| claims.observe(pod.clone()));
        let free = (0..CARDS).flat_map(|card| ids(card, 0..SHARES)).collect();
        Self { trouble, dice, claims, pods, free, held: BTreeMap::new(), present: BTreeSet::new() }
    }

    fn list(&self) -> Listing {
        let lasting = |pod: &Pod, name: &ContainerName| {
            pod.request.containers.iter().any(|c| c.name == *name && c.kind != ContainerKind::Init)
        };
        let held = self.held.iter().filter_map(|((name, container), ids)| {
            let pod = self.pods.iter().find(|pod| *pod.reference.name == **name)?;
            let listed = self.present.contains(name) && lasting(pod, container);
            listed.then(|| Held { container: container.clone(), ..has(pod, ids) })
        });
        Listing {
            pods: self.present.iter().map(|name| PodRef::new("ns", name.as_str())).collect(),
            held: held.collect(),
            foreign: None,
        }
    }

    fn compare(&mut self, inside: bool) {
        let question = self.claims.question(inside);
        self.claims.reconcile(&self.list(), question);
    }

    fn refresh(&mut self) {
        self.pods.iter().for_each(|pod| self.claims.observe(pod.clone()));
    }

    fn learn(&mut self, units: u64) {
        let silent = self.trouble.silent && self.dice.roll(3) == 0;
        if !silent {
            self.compare(true);
        }
        if !self.claims.certain(&resource(), units) {
            self.refresh();
            if !silent {
                self.compare(true);
            }
        }
    }

    fn restart(&mut self) {
        if self.trouble.restarts && self.dice.roll(9) == 0 {
            self.claims = Claims::default();
            self.claims.set_cards(offered());
            self.refresh();
        }
    }

    fn choose(&mut self, size: usize, reusable: &BTreeSet<String>) -> Vec<String> {
        let mut chosen: Vec<String> = reusable.iter().cloned().collect();
        self.dice.shuffle(&mut chosen);
        chosen.truncate(size);
        let mut rest: Vec<String> = self.free.iter().cloned().collect();
        self.dice.shuffle(&mut rest);
        if !self.trouble.disobeys && rest.len() > size - chosen.len() {
            for (card, count) in self.claims.wish(&resource(), size as u64).cards {
                let here = |id: &&String| crate::ids::card(id) == Some(card.as_str());
                let has = chosen.iter().filter(here).count();
                let more = rest.iter().filter(here).take((count as usize).saturating_sub(has)).cloned();
                chosen.extend(more.collect::<Vec<_>>());
            }
            chosen.truncate(size);
            rest.retain(|id| !chosen.contains(id));
        }
        let missing = size - chosen.len();
        chosen.extend(rest.into_iter().take(missing));
        assert_eq!(chosen.len(), size, "the plans fit, so there are enough ids");
        chosen
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
                    self.learn(units);
                    let chosen = self.choose(count(container) as usize, &reusable);
                    self.restart();
                    if !self.claims.certain(&resource(), units) {
                        self.learn(units);
                    }
                    let taker = self.claims.take_counted(&resource(), Ids::new(chosen.clone()));
                    if !self.trouble.silent {
                        assert_eq!(
                            taker.map(|key| key.pod),
                            Some(pod.uid.clone()),
                            "the pod is known, not guessed"
                        );
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
            if let End::CutShort = self.admit(&pod) {
                cuts += 1;
                self.present.clear();
                order = (0..self.pods.len()).collect();
                self.dice.shuffle(&mut order);
                self.trouble.restarts &= cuts < 5;
            }
            if self.dice.roll(3) == 0 {
                self.compare(false);
            }
        }
        self.refresh();
        self.compare(true);
    }

    fn check(&self, began: Trouble) {
        // kubelet keeps an ended init container's ids for its pod, also where no other container of it has use of them:
        // then a card has fewer left than planned, and a pod that was placed there gets another
        let of_init = |pod: &Pod| pod.request.containers.iter().any(|c| c.kind == ContainerKind::Init);
        let init = self.pods.iter().any(of_init);
        let mut taken: BTreeMap<DeviceId, u32> = BTreeMap::new();
        for pod in &self.pods {
            let (record, confirmed) = recorded(&self.claims, pod);
            let Record::Placed(placement) = record else { panic!("{}: {record:?}", pod.reference) };
            assert!(confirmed, "{}", pod.reference);
            for grant in placement.plan.grants.iter().filter(|grant| grant.kind != ContainerKind::Init) {
                let held = Ids::new(self.held[&(pod.reference.name.to_string(), grant.container.clone())].clone());
                let told: BTreeMap<&str, u64> =
                    grant.slices.iter().map(|slice| (slice.device.as_str(), u64::from(slice.count))).collect();
                assert_eq!(told, held.cards(), "record and books of {}", pod.reference);
            }
            for hold in placement.plan.holds() {
                let Taken::Counted(counted) = hold.taken else { panic!() };
                *taken.entry(hold.device).or_default() += counted.count;
            }
            let steered = !began.disobeys && !began.silent && !began.bare && !began.restarts;
            if steered && !init {
                assert_eq!(
                    Some(&placement.plan),
                    pod.record.as_ref().map(|record| &record.plan),
                    "as it was placed"
                );
            }
        }
        // an init container's ids are known where kubelet said whose they were
        if !began.silent && !began.restarts {
            assert!(taken.values().all(|count| *count <= SHARES), "{taken:?}");
        }
    }
}

/// Places a pod from card `first` on, as many of a card as there are.
fn place(left: &mut [u32], request: &GpuRequest, first: usize) -> Option<Plan> {
    let mut plan = Plan::default();
    for container in &request.containers {
        let mut slices = Vec::new();
        let mut missing = count(container);
        for step in 0..left.len() {
            let card = (first + step) % left.len();
            let fits = |more: u32| {
                let mut tried = plan.clone();
                tried.grants.push(grant(container, vec![slice(u32::try_from(card).unwrap(), more)]));
                let device = slice(u32::try_from(card).unwrap(), more).device;
                tried.holds().iter().filter(|hold| hold.device == device).all(|hold| match &hold.taken {
                    Taken::Counted(counted) => counted.count <= left[card],
                    _ => false,
                })
            };
            let more = (1..=missing).rev().find(|more| fits(*more)).unwrap_or_default();
            if more > 0 {
                slices.push(slice(u32::try_from(card).unwrap(), more));
                missing -= more;
            }
        }
        if missing > 0 {
            return None;
        }
        slices.sort_by_key(|slice| slice.index);
        plan.grants.push(grant(container, slices));
    }
    for hold in plan.holds() {
        if let Taken::Counted(counted) = hold.taken {
            left[hold.index as usize] -= counted.count;
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
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_are_kubelets_books_whatever_happens(
        shapes in shapes(), chance in prop::collection::vec(any::<u32>(), 8..64),
        disobeys in any::<bool>(), restarts in any::<bool>(), silent in any::<bool>(), bare in any::<bool>(),
    ) {
        let trouble = Trouble { disobeys, restarts, silent, bare };
        let mut world = World::new(&shapes, chance, trouble);
        world.run();
        world.check(trouble);
    }
}
