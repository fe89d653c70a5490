//! Shares by count: kubelet decides which ids a container has, and records follow.

mod burst;

use super::*;
use crate::allocation::decision::{Criterion, Evidence};
use crate::device::preferred::PreferredDevices;
use kerf::plan::CountedDevice;
use kerf::shares::{Arrangement, Counted, PerCard};

const NAME: &str = "example.com/shared";
/// Per GPU.
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

fn shares(card: u32, count: u32) -> CountedDevice {
    let compute = PerCard::new(SHARES).unwrap().compute_of(count);
    let device = DeviceRef { id: format!("GPU-{card}").as_str().into(), index: card };
    CountedDevice { device, count, compute }
}

fn grant(container: &ContainerRequest, devices: Vec<CountedDevice>) -> ContainerGrant {
    container.granted(Grant::Counted { resource: NAME.into(), devices })
}

/// How many shares a container has of each GPU, by its index.
fn by_index(grant: &ContainerGrant) -> Vec<(u32, u32)> {
    devices(grant).iter().map(|one| (one.device.index, one.count)).collect()
}

fn devices(grant: &ContainerGrant) -> &[CountedDevice] {
    match &grant.gpus {
        Grant::Counted { devices, .. } => devices,
        other => panic!("{other:?}"),
    }
}

/// A pod of one container on these GPUs; without GPUs: without a record.
fn on(name: &str, cards: &[(u32, u32)], asks: u32, time: u64) -> Pod {
    let request = counted(&[(ContainerKind::App, asks)]);
    let devices = cards.iter().map(|(card, count)| shares(*card, *count)).collect();
    let plan = Plan { grants: vec![grant(&request.containers[0], devices)] };
    let record = (!cards.is_empty()).then(|| Placement::new("n", time, plan));
    pod(name, request, record)
}

fn ids(card: u32, range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|k| unit(&format!("GPU-{card}"), k)).collect()
}

fn has(pod: &Pod, ids: &[String]) -> ContainerResources {
    let ids = BTreeMap::from([(resource(), Ids::new(ids.to_vec()))]);
    ContainerResources { pod: pod.reference.clone(), container: "c0".into(), ids }
}

fn with(pods: &[&Pod]) -> Allocations {
    let mut allocations = Allocations::default();
    allocations.set_cards(offered());
    pods.iter().for_each(|pod| allocations.observe((*pod).clone()));
    allocations
}

/// A pod's record once the corrections are written.
fn recorded(allocations: &Allocations, pod: &Pod) -> (Record, bool) {
    let keys = Keys::default();
    let mut annotations = pod.record.as_ref().map(|record| annotation::write(record, &keys)).unwrap_or_default();
    annotations.insert(keys.gpu_assigned.clone(), pod.confirmed.to_string());
    let correction = allocations.corrections(&keys).into_iter().find(|correction| correction.uid == pod.uid);
    annotations.extend(correction.map(|correction| correction.annotations).unwrap_or_default());
    (annotation::read(&annotations, &keys, &pod.request), annotation::confirmed(&annotations, &keys))
}

fn slices(allocations: &Allocations, pod: &Pod) -> Vec<(u32, u32)> {
    match recorded(allocations, pod).0 {
        Record::Placed(placement) => by_index(&placement.plan.grants[0]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn kubelet_is_steered_to_the_recorded_cards_of_the_pod_that_it_admits() {
    let (first, second) = (on("a", &[(0, 2)], 2, 1), on("b", &[(2, 1), (3, 1)], 2, 2));
    let mut allocations = with(&[&first, &second]);
    within(&mut allocations, &listing([], &[&second]));
    assert!(allocations.certain(&resource(), 2));
    let cards = vec![("GPU-2".into(), Some(1)), ("GPU-3".into(), Some(1))];
    assert_eq!(allocations.preferred_devices(&resource(), 2), PreferredDevices { cards, closed: BTreeSet::new() });
    assert_eq!(allocations.preferred_devices(&resource(), 3), PreferredDevices::default());
}

#[test]
fn a_record_follows_what_kubelet_gave_and_is_confirmed() {
    let pod = on("a", &[(0, 2)], 2, 1);
    let mut allocations = with(&[&pod]);
    within(&mut allocations, &listing([], &[&pod]));
    let other = [ids(1, 0..1), ids(2, 3..4)].concat();
    assert!(allocations.take_counted(&resource(), Ids::new(other.clone())).is_some());
    assert_eq!((slices(&allocations, &pod), recorded(&allocations, &pod).1), (vec![(1, 1), (2, 1)], false));
    within(&mut allocations, &listing([has(&pod, &other)], &[]));
    assert_eq!((slices(&allocations, &pod), recorded(&allocations, &pod).1), (vec![(1, 1), (2, 1)], true));
    // after a restart the plugin knows it from kubelet's list alone
    let mut later = with(&[&pod]);
    assert_eq!(within(&mut later, &listing([has(&pod, &other)], &[])).moved.len(), 1);
    assert_eq!((slices(&later, &pod), recorded(&later, &pod).1), (vec![(1, 1), (2, 1)], true));
}

#[test]
fn a_pod_that_took_the_cards_of_one_that_waits_gives_it_its_own() {
    let (first, second) = (on("a", &[(0, 2)], 2, 1), on("b", &[(1, 2)], 2, 2));
    let mut allocations = with(&[&first, &second]);
    within(&mut allocations, &listing([has(&first, &ids(1, 0..2))], &[&second]));
    assert_eq!((slices(&allocations, &first), slices(&allocations, &second)), (vec![(1, 2)], vec![(0, 2)]));
    assert_eq!(allocations.preferred_devices(&resource(), 2).cards, [("GPU-0".into(), Some(2))]);
}

#[test]
fn a_pod_without_a_record_gets_that_of_what_it_holds() {
    let shape = [(ContainerKind::Init, 3), (ContainerKind::Sidecar, 1), (ContainerKind::App, 2)];
    let bare = pod("a", counted(&shape), None);
    let mut allocations = with(&[&bare]);
    let held = |at: usize, ids: Vec<String>| ContainerResources {
        container: format!("c{at}").as_str().into(),
        ..has(&bare, &ids)
    };
    within(&mut allocations, &listing([held(1, ids(0, 0..1))], &[]));
    assert_eq!(recorded(&allocations, &bare).0, Record::Absent, "not all of it is known");
    let all = [held(1, ids(0, 0..1)), held(2, [ids(0, 1..2), ids(1, 0..1)].concat())];
    within(&mut allocations, &listing(all, &[]));
    let (Record::Placed(placement), true) = recorded(&allocations, &bare) else { panic!() };
    assert_eq!((placement.node.as_str(), placement.time), ("n", bare.created));
    let all: Vec<Vec<(u32, u32)>> = placement.plan.grants.iter().map(by_index).collect();
    assert_eq!(
        all,
        [vec![(0, 2), (1, 1)], vec![(0, 1)], vec![(0, 1), (1, 1)]],
        "the init container's is what they have"
    );
}

#[test]
fn ids_that_name_no_card_leave_the_record_as_it_is() {
    let (pod, bare) = (on("a", &[(0, 2)], 2, 1), on("b", &[], 1, 2));
    let mut allocations = with(&[&pod, &bare]);
    let lost = ["nvidia9-_-1".to_owned(), "GPU-9::0".to_owned()];
    within(&mut allocations, &listing([has(&pod, &lost), has(&bare, &lost[..1])], &[]));
    assert_eq!((slices(&allocations, &pod), recorded(&allocations, &pod).1), (vec![(0, 2)], true));
    assert_eq!(recorded(&allocations, &bare).0, Record::Absent);
}

#[test]
fn a_card_with_undivided_memory_takes_no_share_of_memory() {
    let (shared, divided) = (on("a", &[(0, 1)], 1, 1), share("b", 20, 2, 0, 2));
    let mut allocations = with(&[&shared, &divided]);
    within(&mut allocations, &listing([has(&shared, &ids(0, 0..1))], &[&divided]));
    let refusal = allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap_err();
    assert_eq!(refusal.code(), "overcommitted");
    let bare = on("c", &[], 1, 3);
    allocations.observe(bare);
    assert_eq!(allocations.preferred_devices(&resource(), 1).closed, BTreeSet::from(["GPU-0".into()]));
}

#[test]
fn equal_texts_of_two_resources_are_different_ids() {
    let (shared, divided) = (on("a", &[(0, 1)], 1, 1), share("b", 1, 1, 1, 2));
    let mut allocations = with(&[&shared, &divided]);
    allocations.allocate(&Resource::Core, core(1, 0..1)).unwrap();
    allocations.take_counted(&resource(), Ids::new(ids(1, 0..1)));
    let holding = allocations.holding(&core(1, 0..1));
    assert_eq!(holding.iter().map(|answer| answer.key.pod.as_str()).collect::<Vec<_>>(), ["uid-b"]);
    let held = ContainerResources {
        ids: BTreeMap::from([(Resource::Core, core(1, 0..1)), (Resource::Memory, core(1, 0..1))]),
        ..has(&divided, &[])
    };
    within(&mut allocations, &listing([held, has(&shared, &ids(1, 0..1))], &[]));
    let divided = allocations.view().into_iter().find(|view| view.pod.uid == divided.uid).unwrap();
    assert_eq!(divided.containers[0].core, core(1, 0..1));
    assert_eq!(divided.containers[0].counted, Ids::default());
}

#[test]
fn shares_by_count_are_decided_on_like_others() {
    let pods = [on("a", &[(0, 2)], 2, 1), on("b", &[(1, 2)], 2, 2)];
    let mut allocations = with(&[&pods[0], &pods[1]]);
    let (taker, decision) = allocations.clone().take_counted(&resource(), Ids::new(ids(3, 0..2))).unwrap();
    let runners_up = vec![RunnerUp { key: key(&pods[1], "c0"), behind_in: Criterion::PlacedEarlier }];
    let oldest = Decision { evidence: Evidence::OldestOf(2), candidates: 2, runners_up };
    assert_eq!((taker, decision), (key(&pods[0], "c0"), oldest));
    within(&mut allocations, &listing([], &[&pods[1]]));
    let (taker, decision) = allocations.take_counted(&resource(), Ids::new(ids(3, 0..2))).unwrap();
    assert_eq!((taker, decision.evidence), (key(&pods[1], "c0"), Evidence::ListedNow));
}
