//! The rules one by one; [`burst`] tests them all together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kerf::annotation::{self, Keys, Record};
use kerf::device::{Device, Health};
use kerf::ids::{ContainerName, DeviceId, PodRef, PodUid};
use kerf::isolation::Isolation;
use kerf::plan::{ContainerGrant, DeviceRef, Grant, Placement, Plan, Taken};
use kerf::request::{Ask, ContainerKind, ContainerRequest, GpuRequest, RawAnnotations, RawContainer};
use kerf::units::{Mib, Milli, Share};

use super::entry::amount;
use super::*;
use crate::device::backend::{HostDevice, Origin};
use crate::device::ids::{self, IdStyle, Ids, Resource, unit};
use crate::offer::order::Order;
use crate::offer::prefer;
use crate::offer::units::{Pool, Units};

mod burst;
mod counted;
mod decisions;
mod dice;
mod level;
mod strangers;
mod transitions;
mod twins;

const CARDS: u32 = 4;
/// 10 units of memory: small, so that GPUs fill up.
const MEMORY: u64 = 10;

/// A container without its name: kind, core, memory in units.
type Shape = (ContainerKind, u64, u64);

fn cards() -> Vec<Device> {
    (0..CARDS).map(|index| Device::new(format!("GPU-{index}"), index, Mib(MEMORY * 256))).collect()
}

/// The ids that kubelet is advised to take.
fn prefer(
    allocations: &Allocations,
    resource: &Resource,
    free: &[String],
    must: &[String],
    size: usize,
) -> Vec<String> {
    thread_local! {
        static POOLS: [Pool; 2] = [Units::Percents, Units::Memory].map(|units| {
            let hosts = cards().into_iter().map(|card| Arc::new(HostDevice::new(card, Origin::default())));
            Pool::new(IdStyle::COLONS, units, hosts.collect())
        });
    }
    let preferred = allocations.preferred_devices(resource, size as u64);
    POOLS.with(|[core, memory]| {
        let pool = if *resource == Resource::Core { core } else { memory };
        prefer::choose(Order::Tightest, pool, &preferred, ids::card, free, must, size)
    })
}

fn request(shape: &[Shape]) -> GpuRequest {
    let text: Vec<_> =
        shape.iter().enumerate().map(|(at, (_, c, m))| (format!("c{at}"), c.to_string(), m.to_string())).collect();
    let raw = shape.iter().zip(&text).map(|((kind, ..), (name, core, memory))| RawContainer {
        name,
        kind: *kind,
        core: Some(core),
        memory: Some(memory),
        counted: &[],
    });
    GpuRequest::parse(raw, RawAnnotations::default()).unwrap().unwrap()
}

fn key(pod: &Pod, container: &str) -> Key {
    Key { pod: pod.uid.clone(), container: container.into() }
}

fn pod(name: &str, request: GpuRequest, record: Option<Placement>) -> Pod {
    Pod {
        uid: format!("uid-{name}").as_str().into(),
        reference: PodRef::new("ns", name),
        node: "n".into(),
        created: 7,
        request,
        record,
        confirmed: false,
        isolated: None,
        users: Default::default(),
        stage: Stage::Live,
        runtime_ids: BTreeMap::new(),
    }
}

/// Places a pod where it fits, trying GPUs from `first` on; init and later containers prefer the same GPUs.
fn place(taken: &[Plan], request: &GpuRequest, time: u64, first: u32) -> Option<Placement> {
    let all = cards();
    let mut plan = Plan::default();
    for container in &request.containers {
        let wanted = match container.ask {
            Ask::Share(_) => 1,
            Ask::Whole { count, .. } => count as usize,
            Ask::Counted(_) => usize::MAX,
        };
        let mut order: Vec<u32> =
            plan.grants.iter().flat_map(|grant| grant.gpus.devices()).map(|device| device.index).collect();
        order.extend((0..CARDS).map(|k| (first + k) % CARDS));
        let mut chosen: Vec<(DeviceRef, Mib)> = Vec::new();
        for index in order {
            let device = &all[index as usize];
            let known = chosen.iter().any(|(device, _)| device.index == index);
            if chosen.len() == wanted || known {
                continue;
            }
            let mut tried = plan.clone();
            chosen.push((DeviceRef { id: device.id.clone(), index }, device.memory));
            tried.grants.push(container.granted(so_far(&container.ask, &chosen)));
            if !fits(taken.iter().chain([&tried])) {
                chosen.pop();
            }
        }
        plan.grants.push(container.granted(Grant::of(&container.ask, chosen)?));
    }
    Some(Placement::new("n", time, plan))
}

/// What a container has of the GPUs that were chosen for it so far.
fn so_far(ask: &Ask, chosen: &[(DeviceRef, Mib)]) -> Grant {
    let count = u32::try_from(chosen.len()).unwrap();
    let ask = match ask {
        Ask::Share(share) => Ask::Share(*share),
        Ask::Whole { .. } | Ask::Counted(_) => Ask::Whole { count, memory: None },
    };
    Grant::of(&ask, chosen.iter().cloned()).unwrap()
}

fn fits<'a>(plans: impl Iterator<Item = &'a Plan>) -> bool {
    let mut used: BTreeMap<DeviceId, (Share, u32, bool)> = BTreeMap::new();
    for hold in plans.flat_map(Plan::holds) {
        let entry = used.entry(hold.device.id.clone()).or_default();
        *entry = (
            entry.0.saturating_add(hold.taken.share()),
            entry.1 + 1,
            entry.2 || matches!(hold.taken, Taken::Whole(_)),
        );
    }
    let capacity = Share::new(1000, MEMORY * 256);
    used.values().all(|(sum, pods, whole)| sum.fits_in(capacity) && (!whole || *pods == 1))
}

fn share(name: &str, core: u64, memory: u64, card: u32, time: u64) -> Pod {
    let request = request(&[(ContainerKind::App, core, memory)]);
    let placement = place(&[], &request, time, card).unwrap();
    pod(name, request, Some(placement))
}

fn core(card: u32, range: std::ops::Range<u32>) -> Ids {
    Ids::new(range.map(|k| unit(&format!("GPU-{card}"), k)))
}

fn allocations_with(pods: impl IntoIterator<Item = Pod>) -> Allocations {
    let mut allocations = Allocations::default();
    allocations.set_cards(cards());
    pods.into_iter().for_each(|pod| allocations.observe(pod));
    allocations
}

fn held(pod: &Pod, core: Ids, memory: Ids) -> ContainerResources {
    let ids = [(Resource::Core, core), (Resource::Memory, memory)].into_iter().filter(|(_, ids)| !ids.is_empty());
    ContainerResources { pod: pod.reference.clone(), container: "c0".into(), ids: ids.collect() }
}

/// kubelet's list: pods that hold ids, and pods that hold none yet.
fn listing(held: impl IntoIterator<Item = ContainerResources>, others: &[&Pod]) -> Listing {
    let held: Vec<ContainerResources> = held.into_iter().collect();
    let holders = held.iter().map(|item| item.pod.clone());
    Listing {
        pods: holders.chain(others.iter().map(|pod| pod.reference.clone())).collect(),
        held,
        other_domain: None,
    }
}

/// A list that was asked for during a call.
fn within(allocations: &mut Allocations, listing: &Listing) -> Comparison {
    let question = allocations.kubelet.question(true);
    allocations.reconcile(listing, question)
}

fn device(answer: &Answer) -> String {
    answer.grant.gpus.ids().next().unwrap().to_string()
}

#[test]
fn the_pod_that_kubelet_lists_is_the_one_that_is_served() {
    let pods = [share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2), share("c", 20, 2, 2, 3)];
    let mut allocations = allocations_with(pods.clone());
    // bound last, asked for first; and what it has so far tells what comes next
    within(&mut allocations, &listing([], &[&pods[2]]));
    assert!(allocations.certain(&Resource::Memory, 2));
    assert_eq!(allocations.allocate(&Resource::Memory, core(0, 0..2)).unwrap().key.pod.as_str(), "uid-c");
    assert!(!allocations.certain(&Resource::Core, 20), "a call has come since");
    within(&mut allocations, &listing([held(&pods[2], Ids::default(), core(0, 0..2))], &[]));
    let answer = allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    assert_eq!((answer.key.pod.as_str(), device(&answer).as_str()), ("uid-c", "GPU-2"));
    within(&mut allocations, &listing([held(&pods[2], core(0, 0..20), core(0, 0..2))], &[&pods[1]]));
    assert_eq!(allocations.allocate(&Resource::Core, core(1, 0..20)).unwrap().key.pod.as_str(), "uid-b");
}

#[test]
fn more_ids_than_there_are_cannot_be_advised() {
    let allocations = allocations_with([share("a", 20, 2, 0, 1)]);
    let free = [unit("GPU-0", 1), unit("GPU-1", 0)];
    for size in [3, i32::MAX as usize, usize::MAX] {
        assert_eq!(prefer(&allocations, &Resource::Core, &free, &free[..1], size).len(), 2, "{size}");
    }
}

#[test]
fn an_answer_that_kubelet_did_not_note_was_not_given() {
    let pods = [share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2)];
    let mut allocations = allocations_with(pods.clone());
    within(&mut allocations, &listing([], &[&pods[0]]));
    allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    // kubelet ended before it had the answer, and begins with the other pod
    within(&mut allocations, &listing([], &[&pods[1]]));
    let answer = allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    assert_eq!((answer.key.pod.as_str(), device(&answer).as_str()), ("uid-b", "GPU-1"));
    within(&mut allocations, &listing([held(&pods[1], core(0, 0..20), core(1, 0..2))], &[&pods[0]]));
    let answer = allocations.allocate(&Resource::Core, core(0, 20..40)).unwrap();
    assert_eq!((answer.key.pod.as_str(), device(&answer).as_str()), ("uid-a", "GPU-0"));
}

#[test]
fn without_kubelets_list_the_same_call_is_answered_again_once_nobody_waits() {
    let mut allocations = allocations_with([share("a", 20, 2, 0, 1)]);
    let first = allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    let again = allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    assert_eq!((&first.key, &first.grant, false), (&again.key, &again.grant, first.repeated()));
    assert!(again.repeated());
}

#[test]
fn ids_of_one_card_prefer_the_pod_that_was_placed_there() {
    let mut allocations = allocations_with([share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2)]);
    let answer = allocations.allocate(&Resource::Core, core(1, 0..20)).unwrap();
    assert_eq!((answer.key.pod.as_str(), device(&answer).as_str()), ("uid-b", "GPU-1"));
}

#[test]
fn mixed_ids_leave_the_record_in_charge() {
    let mut allocations = allocations_with([share("a", 20, 2, 2, 1)]);
    let mixed = Ids::new(core(0, 0..10).iter().chain(core(1, 0..10).iter()).map(str::to_owned));
    assert_eq!(device(&allocations.allocate(&Resource::Core, mixed).unwrap()), "GPU-2");
}

#[test]
fn an_amount_that_nobody_waits_for_is_refused_by_its_amount() {
    let mut allocations = allocations_with([share("a", 20, 2, 0, 1)]);
    let refusal = allocations.allocate(&Resource::Core, core(0, 0..30)).unwrap_err();
    assert_eq!(refusal.code(), "nobody-waits");
    assert!(refusal.to_string().contains("30 units of core"));
}

#[test]
fn a_card_that_is_ill_lost_or_full_is_not_given() {
    let mut allocations = allocations_with([share("a", 50, 5, 0, 1)]);
    let mut ill = cards();
    ill[0].health = Health::Unhealthy;
    allocations.set_cards(ill);
    let refusal = allocations.allocate(&Resource::Core, core(1, 0..50)).unwrap_err();
    assert_eq!(refusal.code(), "unhealthy");
    allocations.set_cards(cards().split_off(1));
    let refusal = allocations.allocate(&Resource::Core, core(1, 0..50)).unwrap_err();
    assert_eq!(refusal.code(), "no-such-card");

    // a tenant who wrote a record for a full GPU onto its own pod
    let mut allocations = allocations_with([share("a", 50, 9, 0, 1), share("b", 30, 2, 0, 2)]);
    allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap();
    allocations.allocate(&Resource::Memory, core(0, 0..9)).unwrap();
    let refusal = allocations.allocate(&Resource::Core, core(0, 50..80)).unwrap_err();
    assert_eq!(refusal.code(), "overcommitted");
}

#[test]
fn what_a_tenant_writes_later_is_not_obeyed_and_is_corrected() {
    let honest = share("a", 20, 2, 0, 1);
    let mut allocations = allocations_with([honest.clone()]);
    allocations.observe(Pod { record: share("a", 20, 2, 3, 1).record, ..honest.clone() });
    let answer = allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    assert_eq!(device(&answer), "GPU-0");
    allocations.allocate(&Resource::Memory, core(0, 0..2)).unwrap();
    within(&mut allocations, &listing([held(&honest, core(0, 0..20), core(0, 0..2))], &[]));
    let keys = Keys::default();
    let written = allocations.corrections(&keys).remove(0).annotations;
    assert_eq!(annotation::read(&written, &keys, &honest.request), Record::Placed(honest.record.unwrap()));
    assert!(annotation::confirmed(&written, &keys));
}

#[test]
fn a_list_older_than_a_call_or_than_another_list_changes_nothing() {
    let (a, b) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 0, 2));
    let mut allocations = allocations_with([a.clone(), b.clone()]);
    let before = allocations.kubelet.question(false);
    allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    let (second, third) = (allocations.kubelet.question(false), allocations.kubelet.question(false));
    let stale = listing([held(&b, core(0, 0..20), Ids::default())], &[]);
    assert_eq!(allocations.reconcile(&stale, before), Comparison::default());
    assert_eq!(allocations.reconcile(&stale, third).swaps.len(), 1);
    let other = listing([held(&a, core(0, 0..20), Ids::default())], &[]);
    assert_eq!(allocations.reconcile(&other, second), Comparison::default());
}

#[test]
fn a_list_asked_for_while_an_answer_is_on_its_way_takes_nothing_away() {
    let (a, b) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2));
    let mut allocations = allocations_with([a.clone(), b]);
    allocations.allocate(&Resource::Core, core(0, 0..20)).unwrap();
    allocations.allocate(&Resource::Memory, core(0, 0..2)).unwrap();
    // kubelet has noted the first answer, and not yet the second
    let question = allocations.kubelet.question(false);
    allocations.reconcile(&listing([held(&a, core(0, 0..20), Ids::default())], &[]), question);
    let next = allocations.allocate(&Resource::Memory, core(1, 0..2)).unwrap();
    assert_eq!(next.key.pod.as_str(), "uid-b", "the first pod has its memory");
}

#[test]
fn after_a_restart_kubelets_list_restores_the_claims() {
    let (running, waiting) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2));
    let mut allocations = allocations_with([running.clone(), waiting.clone()]);
    let list = listing([held(&running, core(0, 0..20), core(0, 0..2))], &[&waiting]);
    assert_eq!(within(&mut allocations, &list).adopted.len(), 1);
    let answer = allocations.allocate(&Resource::Core, core(1, 0..20)).unwrap();
    assert_eq!(answer.key.pod.as_str(), "uid-b");
    assert!(allocations.starts(&core(0, 0..20)));
    assert!(!allocations.starts(&core(0, 0..19)));
}

#[test]
fn a_pod_that_was_served_in_anothers_place_keeps_what_it_got_and_gives_what_it_had() {
    let pods = [share("a", 50, 5, 0, 1), share("b", 50, 5, 1, 2)];
    let mut allocations = allocations_with(pods.clone());
    // without a list: matched to the first, and it was the second
    assert_eq!(device(&allocations.allocate(&Resource::Core, core(0, 0..50)).unwrap()), "GPU-0");
    let findings = within(&mut allocations, &listing([held(&pods[1], core(0, 0..50), Ids::default())], &[]));
    assert_eq!(findings.swaps.len(), 1);
    allocations.allocate(&Resource::Memory, core(0, 0..5)).unwrap();
    within(&mut allocations, &listing([held(&pods[1], core(0, 0..50), core(0, 0..5))], &[&pods[0]]));
    assert_eq!(device(&allocations.allocate(&Resource::Core, core(1, 0..50)).unwrap()), "GPU-1");
    let written = allocations.corrections(&Keys::default());
    assert_eq!(written.len(), 2, "both records are written");
}

/// kubelet lists no ordinary init containers: one that was served before this process started may or may not be
/// over.
#[test]
fn a_pod_of_whose_init_container_nothing_is_known_goes_on_with_either_container() {
    let shape = [(ContainerKind::Init, 50, 5), (ContainerKind::App, 30, 3)];
    let placement = place(&[], &request(&shape), 1, 0).unwrap();
    for (units, container) in [(30, "c1"), (50, "c0")] {
        let pod = pod("a", request(&shape), Some(placement.clone()));
        let mut allocations = allocations_with([pod.clone()]);
        within(&mut allocations, &listing([], &[&pod]));
        let answer = allocations.allocate(&Resource::Core, core(0, 0..units)).unwrap();
        assert_eq!(answer.key.container.as_str(), container);
    }
}

#[test]
fn only_the_end_of_a_pod_frees_its_card() {
    let a = share("a", 100, 0, 0, 1);
    let mut allocations = allocations_with([a.clone()]);
    allocations.allocate(&Resource::Core, core(0, 0..100)).unwrap();
    allocations.observe(Pod { stage: Stage::Terminating, ..a.clone() });
    assert_eq!(allocations.allocated(&"GPU-0".into()).compute, Milli::WHOLE);
    allocations.observe(Pod { stage: Stage::Ended, ..a.clone() });
    assert_eq!(allocations.allocated(&"GPU-0".into()), Share::ZERO);
    // an older event arrives late
    allocations.observe(a.clone());
    assert!(allocations.view().is_empty());
    allocations.forget(&a.uid);
    allocations.observe(a);
    allocations.begin_list();
    allocations.end_list();
    assert!(allocations.view().is_empty());
}

#[test]
fn a_record_by_index_is_served_and_confirmed_without_being_rewritten() {
    let keys = Keys::default();
    let mut old = share("a", 20, 2, 2, 1);
    let mut annotations = annotation::write(old.record.as_ref().unwrap(), &keys);
    annotations.remove(&keys.placement);
    let Record::Placed(placement) = annotation::read(&annotations, &keys, &old.request) else { panic!() };
    old.record = Some(placement);
    let mut allocations = allocations_with([old.clone()]);
    assert_eq!(device(&allocations.allocate(&Resource::Core, core(2, 0..20)).unwrap()), "GPU-2");
    allocations.allocate(&Resource::Memory, core(2, 0..2)).unwrap();
    within(&mut allocations, &listing([held(&old, core(2, 0..20), core(2, 0..2))], &[]));
    // its isolation is still being prepared
    let written = allocations.corrections(&keys).remove(0).annotations;
    assert_eq!(written, BTreeMap::from([(keys.gpu_assigned.clone(), "true".to_owned())]));
    allocations.enforced(&key(&old, "c0"), core(2, 0..20), Isolation::None);
    let written = allocations.corrections(&keys).remove(0).annotations;
    let isolated = (keys.isolated, r#"{"c0":"none"}"#.to_owned());
    assert_eq!(written, BTreeMap::from([(keys.gpu_assigned, "true".to_owned()), isolated]));
}

#[test]
fn a_pod_that_held_something_departs_until_kubelet_lists_it_no_more() {
    let (a, b) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2));
    let mut allocations = allocations_with([a.clone(), b.clone()]);
    let list = listing([held(&a, core(0, 0..20), core(0, 0..2))], &[&b]);
    within(&mut allocations, &list);
    allocations.forget(&b.uid);
    assert!(!allocations.kubelet.departing(), "it held nothing");
    allocations.observe(Pod { stage: Stage::Ended, ..a });
    within(&mut allocations, &list);
    assert!((allocations.kubelet.departing(), allocations.kubelet.struck()) == (true, false));
    within(&mut allocations, &Listing::default());
    assert!((allocations.kubelet.departing(), allocations.kubelet.struck()) == (false, true));
    assert!(!allocations.kubelet.struck(), "said once");
}
