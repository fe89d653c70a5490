//! The rules one by one; [`burst`] has them all at once.

use std::collections::BTreeMap;

use kerf::annotation::{self, Keys, Record};
use kerf::request::{Ask, RawContainer};
use kerf::units::Mib;

use super::matching::Effort;
use super::truth::Held;
use super::*;
use crate::ids::unit;

mod burst;

const CARDS: u32 = 4;
/// 10 units of memory: small, so that cards fill up.
const MEMORY: u64 = 10;

/// A container before it has a name: kind, core, memory in units.
type Shape = (ContainerKind, u64, u64);

fn cards() -> Vec<Device> {
    (0..CARDS).map(|index| Device::new(format!("GPU-{index}"), index, Mib(MEMORY * 256))).collect()
}

fn request(shape: &[Shape]) -> GpuRequest {
    let text: Vec<_> =
        shape.iter().enumerate().map(|(at, (_, c, m))| (format!("c{at}"), c.to_string(), m.to_string())).collect();
    let raw = shape.iter().zip(&text).map(|((kind, ..), (name, core, memory))| RawContainer {
        name,
        kind: *kind,
        core: Some(core),
        memory: Some(memory),
    });
    GpuRequest::parse(raw, None, None).unwrap().unwrap()
}

fn pod(name: &str, request: GpuRequest, record: Option<Placement>) -> Pod {
    Pod {
        uid: format!("uid-{name}").as_str().into(),
        reference: PodRef::new("ns", name),
        request,
        record,
        confirmed: false,
        stage: Stage::Live,
        runtime_ids: BTreeMap::new(),
    }
}

/// Places a pod where it fits, trying cards from `first` on; init and later containers prefer the same cards.
fn place(taken: &[Plan], request: &GpuRequest, time: u64, first: u32) -> Option<Placement> {
    let all = cards();
    let mut plan = Plan::default();
    for container in &request.containers {
        let mut order: Vec<u32> = plan.grants.iter().flat_map(|g: &Grant| &g.slices).map(|s| s.index).collect();
        order.extend((0..CARDS).map(|k| (first + k) % CARDS));
        let mut slices: Vec<Slice> = Vec::new();
        for index in order {
            let device = &all[index as usize];
            let whole = matches!(container.ask, Ask::Whole { .. });
            let share = match container.ask {
                Ask::Share(share) => share,
                Ask::Whole { .. } => device.capacity(),
            };
            if slices.len() == container.ask.cards() || slices.iter().any(|s| s.index == index) {
                continue;
            }
            let mut tried = plan.clone();
            let slice = Slice { device: device.id.clone(), index, share };
            tried.grants.push(Grant {
                container: container.name.clone(),
                kind: container.kind,
                position: container.position,
                whole,
                slices: slices.iter().cloned().chain([slice.clone()]).collect(),
            });
            if fits(taken.iter().chain([&tried])) {
                slices.push(slice);
            }
        }
        if slices.len() != container.ask.cards() {
            return None;
        }
        plan.grants.push(Grant {
            container: container.name.clone(),
            kind: container.kind,
            position: container.position,
            whole: matches!(container.ask, Ask::Whole { .. }),
            slices,
        });
    }
    Some(Placement { node: "n".into(), time, limit: None, plan })
}

fn fits<'a>(plans: impl Iterator<Item = &'a Plan>) -> bool {
    let mut used: BTreeMap<DeviceId, (Share, u32, bool)> = BTreeMap::new();
    for hold in plans.flat_map(Plan::holds) {
        let entry = used.entry(hold.device).or_default();
        *entry = (entry.0.saturating_add(hold.share), entry.1 + 1, entry.2 || hold.whole);
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

fn claims_with(pods: impl IntoIterator<Item = Pod>) -> Claims {
    let mut claims = Claims::default();
    claims.set_cards(cards());
    pods.into_iter().for_each(|pod| claims.observe(pod));
    claims
}

fn device(answer: &Answer) -> String {
    answer.grant.slices[0].device.to_string()
}

#[test]
fn a_call_that_comes_again_is_answered_again_and_claims_nothing() {
    let mut claims = claims_with([share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2)]);
    let first = claims.allocate(Resource::Core, core(0, 0..20), Effort::Known).unwrap();
    let again = claims.allocate(Resource::Core, core(0, 0..20), Effort::Known).unwrap();
    assert_eq!((&first.key, &first.grant, false), (&again.key, &again.grant, first.repeated));
    assert!(again.repeated);
    let other = claims.allocate(Resource::Core, core(1, 0..20), Effort::Known).unwrap();
    assert_ne!(other.key, first.key);
}

#[test]
fn ids_of_one_card_prefer_the_pod_that_was_placed_there() {
    let mut claims = claims_with([share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2)]);
    let answer = claims.allocate(Resource::Core, core(1, 0..20), Effort::Known).unwrap();
    assert_eq!((answer.key.pod.as_str(), device(&answer).as_str()), ("uid-b", "GPU-1"));
}

#[test]
fn mixed_ids_leave_the_record_in_charge() {
    let mut claims = claims_with([share("a", 20, 2, 2, 1)]);
    let mixed = Ids::new(core(0, 0..10).iter().chain(core(1, 0..10).iter()).map(str::to_owned));
    assert_eq!(device(&claims.allocate(Resource::Core, mixed, Effort::Known).unwrap()), "GPU-2");
}

#[test]
fn an_amount_that_nobody_waits_for_is_refused_by_its_amount() {
    let mut claims = claims_with([share("a", 20, 2, 0, 1)]);
    let refusal = claims.allocate(Resource::Core, core(0, 0..30), Effort::Asked).unwrap_err();
    assert_eq!(refusal.code(), "nobody-waits");
    assert!(refusal.to_string().contains("30 units of core"));
}

#[test]
fn a_card_that_is_ill_lost_or_full_is_not_given() {
    let mut claims = claims_with([share("a", 50, 5, 0, 1)]);
    let mut ill = cards();
    ill[0].health = Health::Unhealthy;
    claims.set_cards(ill);
    let refusal = claims.allocate(Resource::Core, core(1, 0..50), Effort::Asked).unwrap_err();
    assert_eq!(refusal.code(), "unhealthy");
    claims.set_cards(cards().split_off(1));
    let refusal = claims.allocate(Resource::Core, core(1, 0..50), Effort::Asked).unwrap_err();
    assert_eq!(refusal.code(), "no-such-card");

    // a tenant who wrote its own record onto a full card
    let mut claims = claims_with([share("a", 50, 9, 0, 1), share("b", 30, 2, 0, 2)]);
    claims.allocate(Resource::Core, core(0, 0..50), Effort::Known).unwrap();
    claims.allocate(Resource::Memory, core(0, 0..9), Effort::Known).unwrap();
    let refusal = claims.allocate(Resource::Core, core(0, 50..80), Effort::Asked).unwrap_err();
    assert_eq!(refusal.code(), "overcommitted");
}

#[test]
fn what_a_tenant_writes_later_is_not_obeyed_and_is_corrected() {
    let honest = share("a", 20, 2, 0, 1);
    let mut claims = claims_with([honest.clone()]);
    claims.observe(Pod { record: share("a", 20, 2, 3, 1).record, ..honest.clone() });
    let answer = claims.allocate(Resource::Core, core(0, 0..20), Effort::Known).unwrap();
    assert_eq!(device(&answer), "GPU-0");
    claims.allocate(Resource::Memory, core(0, 0..2), Effort::Known).unwrap();
    let held =
        Held { pod: honest.reference.clone(), container: "c0".into(), core: core(0, 0..20), memory: core(0, 0..2) };
    claims.reconcile(&[held], claims.calls());
    let keys = Keys::default();
    let written = claims.corrections(&keys).remove(0).annotations;
    assert_eq!(annotation::read(&written, &keys, &honest.request), Record::Placed(honest.record.unwrap()));
    assert!(annotation::confirmed(&written, &keys));
}

#[test]
fn an_answer_older_than_a_call_exchanges_nothing() {
    let (a, b) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 0, 2));
    let mut claims = claims_with([a.clone(), b]);
    let asked_at = claims.calls();
    claims.allocate(Resource::Core, core(0, 0..20), Effort::Known).unwrap();
    let stale =
        Held { pod: PodRef::new("ns", "b"), container: "c0".into(), core: core(0, 0..20), memory: Ids::default() };
    assert_eq!(claims.reconcile(std::slice::from_ref(&stale), asked_at), truth::Findings::default());
    assert_eq!(claims.reconcile(&[stale], claims.calls()).swaps.len(), 1);
}

#[test]
fn a_list_asked_for_while_an_answer_is_on_its_way_takes_nothing_away() {
    let (a, b) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2));
    let mut claims = claims_with([a.clone(), b]);
    claims.allocate(Resource::Core, core(0, 0..20), Effort::Known).unwrap();
    claims.allocate(Resource::Memory, core(0, 0..2), Effort::Known).unwrap();
    // kubelet has noted the first answer, and not yet the second
    let half =
        Held { pod: a.reference.clone(), container: "c0".into(), core: core(0, 0..20), memory: Ids::default() };
    claims.reconcile(&[half], claims.calls());
    let next = claims.allocate(Resource::Memory, core(1, 0..2), Effort::Known).unwrap();
    assert_eq!(next.key.pod.as_str(), "uid-b", "the first pod has its memory");
}

#[test]
fn after_a_restart_kubelets_list_restores_the_claims() {
    let (running, waiting) = (share("a", 20, 2, 0, 1), share("b", 20, 2, 1, 2));
    let mut claims = claims_with([running.clone(), waiting]);
    let held = Held {
        pod: running.reference.clone(),
        container: "c0".into(),
        core: core(0, 0..20),
        memory: core(0, 0..2),
    };
    assert_eq!(claims.reconcile(&[held], claims.calls()).adopted.len(), 1);
    let answer = claims.allocate(Resource::Core, core(1, 0..20), Effort::Known).unwrap();
    assert_eq!(answer.key.pod.as_str(), "uid-b");
    assert!(claims.starts(&core(0, 0..20)).is_some());
    assert!(claims.starts(&core(0, 0..19)).is_none());
}

#[test]
fn only_the_end_of_a_pod_frees_its_card() {
    let a = share("a", 100, 0, 0, 1);
    let mut claims = claims_with([a.clone()]);
    claims.allocate(Resource::Core, core(0, 0..100), Effort::Known).unwrap();
    claims.observe(Pod { stage: Stage::Leaving, ..a.clone() });
    assert_eq!(claims.allocated(&"GPU-0".into()).compute, Milli::WHOLE);
    claims.observe(Pod { stage: Stage::Ended, ..a.clone() });
    assert_eq!(claims.allocated(&"GPU-0".into()), Share::ZERO);
    // an older event arrives late
    claims.observe(a.clone());
    assert!(claims.view().is_empty());
    claims.forget(&a.uid);
    claims.observe(a);
    claims.begin_list();
    claims.end_list();
    assert!(claims.view().is_empty());
}

#[test]
fn a_record_by_index_is_served_and_confirmed_without_being_rewritten() {
    let keys = Keys::default();
    let mut old = share("a", 20, 2, 2, 1);
    let mut annotations = annotation::write(old.record.as_ref().unwrap(), &keys);
    annotations.remove(&keys.placement);
    let Record::Placed(placement) = annotation::read(&annotations, &keys, &old.request) else { panic!() };
    old.record = Some(placement);
    let mut claims = claims_with([old.clone()]);
    assert_eq!(device(&claims.allocate(Resource::Core, core(2, 0..20), Effort::Known).unwrap()), "GPU-2");
    claims.allocate(Resource::Memory, core(2, 0..2), Effort::Known).unwrap();
    let held = Held { pod: old.reference, container: "c0".into(), core: core(2, 0..20), memory: core(2, 0..2) };
    claims.reconcile(&[held], claims.calls());
    let written = claims.corrections(&keys).remove(0).annotations;
    assert_eq!(written, BTreeMap::from([(keys.gpu_assigned, "true".to_owned())]));
}
