//! What kerf writes on Pods and Nodes reads back as it was; what others write is never obeyed by mistake.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use kerf::annotation::{self, Keys, MAX_BYTES, Record, Unreadable, compat, inventory, placement};
use kerf::device::{Device, Health, Inventory, Link};
use kerf::ids::DeviceId;
use kerf::isolation::Isolation;
use kerf::plan::{Form, Grant, Placement, Plan, Slice};
use kerf::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};
use kerf::shares::{Arrangement, Counted, PerCard};
use kerf::units::{Mib, Milli, Share};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn kind() -> impl Strategy<Value = ContainerKind> {
    prop::sample::select(vec![ContainerKind::Init, ContainerKind::Sidecar, ContainerKind::App])
}

fn slice() -> impl Strategy<Value = Slice> {
    let slice = (".{1,12}", any::<u32>(), 1..=1000u32, any::<u64>(), 1..=u32::MAX);
    slice.prop_map(|(device, index, compute, memory, count)| Slice {
        device: device.into(),
        index,
        share: Share::new(compute, memory),
        count,
    })
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![Just(Form::Share), Just(Form::Whole), ".{1,12}".prop_map(|name| Form::Counted(name.into()))]
}

/// What the record has no place for, as a form has it.
fn as_recorded(mut slice: Slice, form: &Form) -> Slice {
    match form {
        Form::Counted(_) => slice.share.memory = Mib(0),
        Form::Share | Form::Whole => slice.count = 1,
    }
    slice
}

/// Any placement that the codec holds to be legal, whether or not a planner would make it.
fn any_placement() -> impl Strategy<Value = Placement> {
    let grant = (kind(), any::<u32>(), form(), vec(slice(), 1..5));
    let grants = btree_map(".{0,12}", grant, 1..6);
    (".{0,12}", any::<u64>(), option::of(0..=1000u32), grants).prop_map(|(node, time, limit, grants)| {
        let grants = grants.into_iter().map(|(name, (kind, position, form, slices))| Grant {
            container: name.into(),
            kind,
            position,
            slices: slices.into_iter().map(|slice| as_recorded(slice, &form)).collect(),
            form,
        });
        Placement { node: node.into(), time, limit: limit.map(Milli), plan: Plan { grants: grants.collect() } }
    })
}

/// A request, and a placement that serves it.
fn served(kinds: &'static [ContainerKind]) -> impl Strategy<Value = (GpuRequest, Placement)> {
    let share = (1..100u32, 1..500u64).prop_map(|(core, mib)| Ask::Share(Share::new(core * 10, mib * 256)));
    let whole = (1..4u32, option::of(1..50u64))
        .prop_map(|(count, memory)| Ask::Whole { count, memory: memory.map(|units| Mib(units * 256)) });
    let counted = (1..9u32).prop_map(|count| Ask::Counted(Counted { resource: "a.b/shared".into(), count }));
    // the compatibility record has no place for shares by count, nor for init containers
    let forms = if kinds.contains(&ContainerKind::Init) { 1 } else { 0 };
    let container = (prop::sample::select(kinds), prop_oneof![1 => share, 1 => whole, forms => counted], 0..50u32);
    (vec(container, 1..5), option::of(100..=1000u32), any::<u64>()).prop_map(|(containers, limit, time)| {
        let limit = limit.map(Milli);
        let asked = |(at, (kind, ask, _)): (u32, &(ContainerKind, Ask, u32))| ContainerRequest {
            name: format!("c{at}").into(),
            kind: *kind,
            position: at,
            ask: ask.clone(),
        };
        let request = GpuRequest {
            containers: (0..).zip(&containers).map(asked).collect(),
            limit,
            policy: None,
            isolation: None,
            arrangement: Arrangement::Any,
            priority: 0,
        };
        let grant = |(asked, (_, _, first)): (&ContainerRequest, &(ContainerKind, Ask, u32))| {
            // shares by count: of N = 50, two on each card but the last
            let (cards, share, last) = match &asked.ask {
                Ask::Share(share) => (1, *share, 1),
                Ask::Whole { count, .. } => (*count, Share::new(1000, 81_559), 1),
                Ask::Counted(Counted { count, .. }) => (count.div_ceil(2), Share::new(40, 0), 2 - count % 2),
            };
            let slice = |index: u32| {
                let (device, by_count) = (format!("GPU-{index}").into(), matches!(asked.ask, Ask::Counted(_)));
                let count = if by_count && index + 1 < *first + cards { 2 } else { last };
                let compute = if by_count { 20 * count } else { share.compute.0 };
                Slice { device, index, share: Share { compute: Milli(compute), ..share }, count }
            };
            Grant {
                container: asked.name.clone(),
                kind: asked.kind,
                position: asked.position,
                form: Form::of(&asked.ask),
                slices: (*first..first + cards).map(slice).collect(),
            }
        };
        let plan = Plan { grants: request.containers.iter().zip(&containers).map(grant).collect() };
        (request, Placement { node: "gpu-7".into(), time, limit, plan })
    })
}

fn any_inventory() -> impl Strategy<Value = Inventory> {
    let link = prop_oneof![
        prop::sample::select(vec![Link::System, Link::Node, Link::HostBridge, Link::Switches, Link::Switch]),
        any::<u8>().prop_map(Link::NvLink),
    ];
    let isolation = prop::sample::select(Isolation::ALL.to_vec());
    let card = (any::<u32>(), ".{0,12}", any::<u64>(), option::of(any::<u32>()), any::<bool>(), isolation);
    let offers = btree_map("[a-z]{1,9}", prop::sample::select(vec![1, 4, 100]), 0..3);
    let card = (card, btree_map(any::<u32>(), link, 0..5), offers);
    btree_map(".{1,12}", card, 0..9).prop_map(|cards| {
        let devices =
            cards.into_iter().map(|(id, ((index, model, memory, numa, ill, isolation), links, offers))| Device {
                model: model.into(),
                numa,
                health: if ill { Health::Unhealthy } else { Health::Healthy },
                isolation,
                links,
                offers: offers.into_iter().map(|(name, n)| (name.into(), PerCard::new(n).unwrap())).collect(),
                ..Device::new(id, index, Mib(memory))
            });
        Inventory::new(devices.collect())
    })
}

/// One change to a text: by character, or by swapping in a piece of JSON that means something else.
fn mutate(text: &str, changes: &[(usize, usize, &'static str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (at, length, piece)| {
        let chars: Vec<char> = text.chars().collect();
        let at = at % (chars.len() + 1);
        let end = (at + length).min(chars.len());
        chars[..at].iter().copied().chain(piece.chars()).chain(chars[end..].iter().copied()).collect()
    })
}

fn changes() -> impl Strategy<Value = Vec<(usize, usize, &'static str)>> {
    let pieces = vec![
        "",
        "0",
        "-",
        "1e9",
        "18446744073709551616",
        ".5",
        "\"",
        "\\",
        "\\u0000",
        "\\ud800",
        "null",
        "true",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "{}",
        "[]",
        "\"version\":2,",
        "\"node\":\"x\",",
        "\"GPU-x\"",
        " ",
        "\u{7f}",
        "é",
    ];
    vec((any::<usize>(), 0..4usize, prop::sample::select(pieces)), 1..4)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_placement_reads_back_as_it_was(value in any_placement()) {
        prop_assert_eq!(placement::decode(&placement::encode(&value)), Ok(value));
    }

    #[test]
    fn an_inventory_reads_back_as_it_was(value in any_inventory()) {
        prop_assert_eq!(inventory::decode(&inventory::encode(&value)), Ok(value));
    }

    #[test]
    fn both_records_of_a_placement_give_it_back(
        (request, value) in served(&[ContainerKind::Init, ContainerKind::Sidecar, ContainerKind::App]),
    ) {
        let keys = Keys::default();
        let annotations = annotation::write(&value, &keys);
        prop_assert!(!annotation::confirmed(&annotations, &keys));
        prop_assert_eq!(annotation::read(&annotations, &keys, &request), Record::Placed(value));
    }

    #[test]
    fn the_compatibility_record_alone_names_the_same_cards_by_index(
        (request, value) in served(&[ContainerKind::App]),
    ) {
        let keys = Keys::default();
        let written = compat::encode(&value, &keys);
        let Record::Placed(found) = annotation::read(&written, &keys, &request) else {
            return Err(TestCaseError::fail("not placed"));
        };
        prop_assert_eq!((&found.node, found.time, found.limit), (&value.node, value.time, value.limit));
        let cards = |placement: &Placement| -> Vec<Vec<u32>> {
            placement.plan.grants.iter().map(|g| g.slices.iter().map(|s| s.index).collect()).collect()
        };
        prop_assert_eq!(cards(&found), cards(&value));
        let slices = || found.plan.grants.iter().flat_map(|grant| &grant.slices);
        prop_assert!(slices().all(|slice| slice.device == DeviceId::of_index(slice.index)));
        prop_assert_eq!(compat::encode(&found, &keys), written);
    }

    #[test]
    fn a_changed_placement_is_refused_or_is_another_legal_one(value in any_placement(), changes in changes()) {
        if let Ok(found) = placement::decode(&mutate(&placement::encode(&value), &changes)) {
            prop_assert_eq!(placement::decode(&placement::encode(&found)), Ok(found));
        }
    }

    #[test]
    fn a_changed_inventory_is_refused_or_is_another_legal_one(value in any_inventory(), changes in changes()) {
        if let Ok(found) = inventory::decode(&mutate(&inventory::encode(&value), &changes)) {
            prop_assert_eq!(inventory::decode(&inventory::encode(&found)), Ok(found));
        }
    }

    #[test]
    fn noise_is_neither_placement_nor_inventory(text in "\\PC*", bytes in vec(any::<u8>(), 0..200)) {
        for text in [text, String::from_utf8_lossy(&bytes).into_owned()] {
            prop_assert!(placement::decode(&text).is_err());
            prop_assert!(inventory::decode(&text).is_err());
        }
    }

    #[test]
    fn a_changed_record_is_obeyed_only_where_it_serves_the_request(
        (request, value) in served(&[ContainerKind::Sidecar, ContainerKind::App]),
        victim in any::<prop::sample::Index>(),
        changes in changes(),
        authority in any::<bool>(),
    ) {
        let keys = Keys::default();
        let mut annotations = annotation::write(&value, &keys);
        if !authority {
            annotations.remove(&keys.placement);
        }
        let key = victim.get(&annotations.keys().cloned().collect::<Vec<_>>()).clone();
        let changed = mutate(&annotations[&key], &changes);
        annotations.insert(key, changed);
        if let Record::Placed(found) = annotation::read(&annotations, &keys, &request) {
            prop_assert!(found.plan.serves(&request));
        }
    }
}

/// A pod with one share and one pair of cards, and a record of them that would be believed.
fn believed() -> (GpuRequest, BTreeMap<String, String>) {
    let container =
        |name: &str, position, ask| ContainerRequest { name: name.into(), kind: ContainerKind::App, position, ask };
    let containers = vec![
        container("main", 0, Ask::Share(Share::new(500, 2560))),
        container("train", 1, Ask::Whole { count: 2, memory: None }),
    ];
    let request = GpuRequest {
        containers,
        limit: None,
        policy: None,
        isolation: None,
        arrangement: Arrangement::Any,
        priority: 0,
    };
    let annotations = BTreeMap::from([
        ("inspur.com/predicate-gpu-idx-0".into(), "0".into()),
        ("inspur.com/predicate-gpu-idx-1".into(), "1,2".into()),
        ("inspur.com/predicate-node".into(), "gpu-7".into()),
        ("inspur.com/predicate-time".into(), "1700000000000000000".into()),
    ]);
    (request, annotations)
}

#[test]
fn a_hostile_list_of_indices_is_unreadable() {
    let (request, good) = believed();
    let keys = Keys::default();
    assert!(matches!(annotation::read(&good, &keys, &request), Record::Placed(_)));
    let long = "1,".repeat(5 << 20);
    let lists = [
        "",
        " ",
        "-1",
        "x",
        "0, 1",
        "0,",
        ",0",
        "0,0",
        "1,1",
        "1,2,3",
        "1.5,2",
        "1;2",
        "0x1,2",
        "4294967296,1",
        "1,२",
        "1,2\n",
        "null",
        long.as_str(),
    ];
    for list in lists {
        let mut annotations = good.clone();
        annotations.insert("inspur.com/predicate-gpu-idx-1".into(), list.into());
        let record = annotation::read(&annotations, &keys, &request);
        assert!(matches!(record, Record::Unreadable(_)), "{:.20}: {record:?}", list);
        annotations.remove("inspur.com/predicate-gpu-idx-1");
        annotations.insert("inspur.com/predicate-gpu-idx-7".into(), list.into());
        let record = annotation::read(&annotations, &keys, &request);
        assert_eq!(record, Record::Unreadable(Unreadable::Indices), "of no container: {:.20}", list);
    }
    let others: BTreeMap<String, String> =
        good.iter().map(|(key, value)| (key.replace("inspur.com", "tencent.com"), value.clone())).collect();
    assert_eq!(annotation::read(&others, &keys, &request), Record::Absent, "another domain");
}

#[test]
fn a_hostile_placement_is_unreadable_and_hides_no_compatibility_record() {
    let (request, good) = believed();
    let keys = Keys::default();
    let share = r#"{"name":"main","kind":"app","position":0,"whole":false,"slices":[
        {"gpu":"a","index":0,"compute":500,"memory":2560}]}"#;
    let cards = r#"{"name":"train","kind":"app","position":1,"whole":true,"slices":[
        {"gpu":"b","index":1,"compute":1000,"memory":9},{"gpu":"c","index":2,"compute":1000,"memory":9}]}"#;
    let text = format!(r#"{{"version":1,"node":"n","time":1,"containers":[{share},{cards}]}}"#);
    let read = |text: String| {
        let mut annotations = good.clone();
        annotations.insert(keys.placement.clone(), text);
        annotation::read(&annotations, &keys, &request)
    };
    assert!(matches!(read(text.clone()), Record::Placed(_)));
    assert_eq!(read(text.replace("\"version\":1", "\"version\":2")), Record::Unreadable(Unreadable::Version(2)));
    assert_eq!(read(" ".repeat(10 << 20)), Record::Unreadable(Unreadable::TooLong));
    assert_eq!(read(text.clone() + &" ".repeat(MAX_BYTES)), Record::Unreadable(Unreadable::TooLong));
    assert_eq!(read(text.replace("500", "400")), Record::Unreadable(Unreadable::OtherRequest));
    assert_eq!(read(text.replace("\"b\"", "\"c\"")), Record::Unreadable(Unreadable::OtherRequest));
    for (from, to) in [
        ("\"version\":1,", ""),
        ("\"version\":1,", "\"version\":1,\"version\":1,"),
        ("\"version\":1,", "\"version\":1.0,"),
        ("\"version\":1,", "\"version\":\"1\","),
        ("\"time\":1,", "\"time\":1e400,"),
        ("\"time\":1,", "\"time\":-1,"),
        ("\"time\":1,", "\"time\":18446744073709551616,"),
        ("\"time\":1,", "\"time\":1,\"limit\":1001,"),
        ("\"time\":1,", "\"time\":1,\"more\":{},"),
        ("\"index\":0", "\"index\":-1"),
        ("\"index\":0", "\"index\":0,\"index\":0"),
        ("\"index\":0", "\"index\":4294967296"),
        ("\"a\"", "\"\""),
        ("\"a\"", "null"),
        ("\"train\"", "\"main\""),
        ("\"app\"", "\"App\""),
        ("\"compute\":500", "\"compute\":500000"),
        ("\"compute\":1000", "\"compute\":0"),
        ("\"memory\":2560", "\"memory\":-2560"),
        ("]}", "]}]}"),
    ] {
        assert!(text.contains(from), "{from}");
        let record = read(text.replace(from, to));
        assert!(matches!(record, Record::Unreadable(_)), "{from} -> {to}: {record:?}");
    }
    for deep in ["[", "{\"version\":", "{\"a\":["] {
        let record = read(deep.repeat(30_000));
        assert!(matches!(record, Record::Unreadable(_)), "{deep}");
    }
    for other in ["", "null", "[]", "{}", "\u{feff}{}", "1", "\"x\""] {
        assert!(matches!(read(other.into()), Record::Unreadable(_)), "{other}");
    }
}

#[test]
fn a_placement_of_the_largest_node_stays_within_the_bound() {
    let slice = |index: u32| Slice {
        device: format!("GPU-{index:08x}-0000-0000-0000-000000000000").as_str().into(),
        index,
        share: Share::new(1000, 1 << 20),
        count: 1,
    };
    let grant = |position: u32| Grant {
        container: format!("{position:0>63}").into(),
        kind: ContainerKind::App,
        position,
        form: Form::Whole,
        slices: (position * 8..position * 8 + 8).map(slice).collect(),
    };
    let plan = Plan { grants: (0..64).map(grant).collect() };
    let value = Placement { node: "n".repeat(253).into(), time: u64::MAX, limit: None, plan };
    let text = placement::encode(&value);
    assert!(text.len() * 2 < MAX_BYTES, "{}", text.len());
    assert_eq!(placement::decode(&text), Ok(value));
}

#[test]
fn a_record_that_lessens_what_the_pod_takes_does_not_serve_it() {
    let (request, annotations) = believed();
    let keys = Keys::default();
    let Record::Placed(good) = annotation::read(&annotations, &keys, &request) else { panic!("believed") };
    let read = |change: fn(&mut Grant)| {
        let mut bad = good.clone();
        bad.plan.grants.first_mut().into_iter().for_each(change);
        annotation::read(&annotation::write(&bad, &keys), &keys, &request)
    };
    assert!(matches!(read(|_| {}), Record::Placed(_)));
    let other = Record::Unreadable(Unreadable::OtherRequest);
    assert_eq!(read(|grant| grant.slices[0].share.memory = Mib(1)), other);
    assert_eq!(read(|grant| grant.kind = ContainerKind::Init), other, "it would count as ending before the others");
    assert_eq!(read(|grant| grant.position = 1), other);
    assert_eq!(read(|grant| grant.form = Form::Whole), other);
    assert_eq!(read(|grant| grant.form = Form::Counted("a.b/shared".into())), other);
    assert_eq!(read(|grant| grant.slices.push(grant.slices[0].clone())), other);
}
