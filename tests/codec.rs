//! Annotations that kerf writes read back unchanged; annotations that others write are never accepted by mistake.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;

use kerf::annotation::{self, Keys, MAX_BYTES, Record, Unreadable, compat, inventory, placement};
use kerf::device::{Device, Health, Inventory, Link};
use kerf::ids::DeviceId;
use kerf::isolation::Isolation;
use kerf::plan::{ContainerGrant, CountedDevice, DeviceRef, Grant, Placement, Plan, WholeDevice};
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

fn device() -> impl Strategy<Value = DeviceRef> {
    (".{1,12}", any::<u32>()).prop_map(|(id, index)| DeviceRef { id: id.into(), index })
}

fn gpus() -> impl Strategy<Value = Grant> {
    let share = (device(), 1..=1000u32, any::<u64>());
    let share =
        share.prop_map(|(device, compute, memory)| Grant::Share { device, share: Share::new(compute, memory) });
    let whole = (device(), any::<u64>()).prop_map(|(device, memory)| WholeDevice { device, memory: Mib(memory) });
    let counted = (device(), 1..=u32::MAX, 1..=1000u32).prop_map(|(device, count, compute)| CountedDevice {
        device,
        count,
        compute: Milli(compute),
    });
    let counted = (".{1,12}", vec(counted, 1..5))
        .prop_map(|(resource, devices)| Grant::Counted { resource: resource.into(), devices });
    prop_oneof![share, vec(whole, 1..5).prop_map(Grant::Whole), counted]
}

/// Any placement that the codec accepts, whether or not a planner would make it.
fn any_placement() -> impl Strategy<Value = Placement> {
    let grants = btree_map(".{0,12}", (kind(), any::<u32>(), gpus()), 1..6);
    (".{0,12}", any::<u64>(), option::of(0..=1000u32), grants).prop_map(|(node, time, limit, grants)| {
        let grants = grants.into_iter().map(|(name, (kind, position, gpus))| ContainerGrant {
            container: name.into(),
            kind,
            position,
            gpus,
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
    // the compatibility record cannot hold counted shares or init containers
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
        let device = |index: u32| DeviceRef { id: format!("GPU-{index}").into(), index };
        let grant = |(asked, (_, _, first)): (&ContainerRequest, &(ContainerKind, Ask, u32))| {
            let gpus = match &asked.ask {
                // of N = 50, two on each card but the last
                Ask::Counted(Counted { resource, count }) => {
                    let on = |at: u32| 2.min(count - 2 * at);
                    let counted = |at| CountedDevice {
                        device: device(first + at),
                        count: on(at),
                        compute: Milli(20 * on(at)),
                    };
                    let devices = (0..count.div_ceil(2)).map(counted).collect();
                    Grant::Counted { resource: resource.clone(), devices }
                }
                ask => {
                    let cards = if let Ask::Whole { count, .. } = ask { *count } else { 1 };
                    Grant::of(ask, (*first..first + cards).map(|index| (device(index), Mib(81_559)))).unwrap()
                }
            };
            asked.granted(gpus)
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

/// Changes a text: single characters, or pieces of JSON with another meaning.
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
            placement.plan.grants.iter().map(|g| g.gpus.devices().map(|d| d.index).collect()).collect()
        };
        prop_assert_eq!(cards(&found), cards(&value));
        let mut devices = found.plan.grants.iter().flat_map(|grant| grant.gpus.devices());
        prop_assert!(devices.all(|device| device.id == DeviceId::of_index(device.index)));
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

/// A pod with one share and one pair of cards, and a record of them that is accepted.
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
    let device = |index: u32| WholeDevice {
        device: DeviceRef { id: format!("GPU-{index:08x}-0000-0000-0000-000000000000").as_str().into(), index },
        memory: Mib(1 << 20),
    };
    let grant = |position: u32| ContainerGrant {
        container: format!("{position:0>63}").into(),
        kind: ContainerKind::App,
        position,
        gpus: Grant::Whole((position * 8..position * 8 + 8).map(device).collect()),
    };
    let plan = Plan { grants: (0..64).map(grant).collect() };
    let value = Placement::new("n".repeat(253), u64::MAX, plan);
    let text = placement::encode(&value);
    assert!(text.len() * 2 < MAX_BYTES, "{}", text.len());
    assert_eq!(placement::decode(&text), Ok(value));
}

#[test]
fn a_record_that_lessens_what_the_pod_takes_does_not_serve_it() {
    let (request, annotations) = believed();
    let keys = Keys::default();
    let Record::Placed(good) = annotation::read(&annotations, &keys, &request) else { panic!("believed") };
    let read = |change: fn(&mut ContainerGrant)| {
        let mut bad = good.clone();
        bad.plan.grants.first_mut().into_iter().for_each(change);
        annotation::read(&annotation::write(&bad, &keys), &keys, &request)
    };
    assert!(matches!(read(|_| {}), Record::Placed(_)));
    let other = Record::Unreadable(Unreadable::OtherRequest);
    let less = |grant: &mut ContainerGrant| {
        let device = grant.gpus.devices().next().unwrap().clone();
        grant.gpus = Grant::Share { device, share: Share::new(500, 1) };
    };
    let whole = |grant: &mut ContainerGrant| {
        let device = grant.gpus.devices().next().unwrap().clone();
        grant.gpus = Grant::Whole(vec![WholeDevice { device, memory: Mib(2560) }]);
    };
    let counted = |grant: &mut ContainerGrant| {
        let device = grant.gpus.devices().next().unwrap().clone();
        let devices = vec![CountedDevice { device, count: 1, compute: Milli(500) }];
        grant.gpus = Grant::Counted { resource: "a.b/shared".into(), devices };
    };
    assert_eq!(read(less), other);
    assert_eq!(read(|grant| grant.kind = ContainerKind::Init), other, "it would count as ending before the others");
    assert_eq!(read(|grant| grant.position = 1), other);
    assert_eq!(read(whole), other);
    assert_eq!(read(counted), other);
}

/// Values as earlier versions wrote them, which they still read back.
mod written_before {
    use super::*;

    const SHARE: &str = r#"{"version":1,"node":"gpu-7","time":1700000000000000000,"limit":800,"containers":[{"name":"main","kind":"app","position":0,"whole":false,"slices":[{"gpu":"GPU-5c0d","index":3,"compute":500,"memory":7680}]}]}"#;
    const PHASES: &str = r#"{"version":1,"node":"gpu-7","time":1700000000000000000,"containers":[{"name":"fetch","kind":"init","position":0,"whole":false,"slices":[{"gpu":"GPU-a","index":0,"compute":100,"memory":256}]},{"name":"proxy","kind":"sidecar","position":1,"whole":false,"slices":[{"gpu":"GPU-a","index":0,"compute":250,"memory":512}]},{"name":"train","kind":"app","position":0,"whole":true,"slices":[{"gpu":"GPU-b","index":1,"compute":1000,"memory":81559},{"gpu":"GPU-c","index":2,"compute":1000,"memory":81559}]}]}"#;
    const BY_INDEX: &str = r#"{"version":1,"node":"old","time":1,"containers":[{"name":"main","kind":"app","position":0,"whole":false,"slices":[{"gpu":"index-0","index":0,"compute":10,"memory":256}]}]}"#;
    const COUNTED: &str = r#"{"version":1,"node":"gpu-7","time":1700000000000000000,"containers":[{"name":"main","kind":"app","position":0,"whole":false,"resource":"deepomatic.com/shared-gpu","slices":[{"gpu":"GPU-5c0d","index":3,"compute":20,"count":2},{"gpu":"GPU-77aa","index":4,"compute":10,"count":1}]}]}"#;

    #[test]
    fn what_is_read_is_written_byte_for_byte() {
        for (text, plan) in [
            (SHARE, "main: GPU-5c0d (50 core, 7680 MiB)"),
            (
                PHASES,
                "fetch: GPU-a (10 core, 256 MiB); proxy: GPU-a (25 core, 512 MiB); train: GPU-b, GPU-c (whole)",
            ),
            (BY_INDEX, "main: index-0 (1 core, 256 MiB)"),
            (COUNTED, "main: GPU-5c0d (2 x deepomatic.com/shared-gpu), GPU-77aa (1 x deepomatic.com/shared-gpu)"),
        ] {
            let placement = placement::decode(text).unwrap();
            assert_eq!(placement.plan.to_string(), plan);
            assert_eq!(placement::encode(&placement), text);
        }
    }

    fn request(containers: &[(&str, ContainerKind, u32, Ask)]) -> GpuRequest {
        let container = |(name, kind, position, ask): &(&str, ContainerKind, u32, Ask)| ContainerRequest {
            name: (*name).into(),
            kind: *kind,
            position: *position,
            ask: ask.clone(),
        };
        GpuRequest {
            containers: containers.iter().map(container).collect(),
            limit: None,
            policy: None,
            isolation: None,
            arrangement: Arrangement::Any,
            priority: 0,
        }
    }

    fn read(text: &str, request: &GpuRequest) -> Record {
        let keys = Keys::default();
        annotation::read(&BTreeMap::from([(keys.placement.clone(), text.to_owned())]), &keys, request)
    }

    #[test]
    fn records_are_believed_where_they_serve_the_request() {
        use ContainerKind::{App, Init, Sidecar};
        let share = |compute, memory| Ask::Share(Share::new(compute, memory));
        let phases = [
            ("fetch", Init, 0, share(100, 256)),
            ("proxy", Sidecar, 1, share(250, 512)),
            ("train", App, 0, Ask::Whole { count: 2, memory: None }),
        ];
        let counted = |count| Ask::Counted(Counted { resource: "deepomatic.com/shared-gpu".into(), count });
        let believed = |text, asked: &[_]| matches!(read(text, &request(asked)), Record::Placed(_));
        assert!(believed(SHARE, &[("main", App, 0, share(500, 7680))]));
        assert!(believed(PHASES, &phases));
        assert!(believed(BY_INDEX, &[("main", App, 0, share(10, 256))]));
        assert!(believed(COUNTED, &[("main", App, 0, counted(3))]));
        assert!(!believed(COUNTED, &[("main", App, 0, counted(2))]));
    }

    #[test]
    fn a_whole_card_is_all_of_it_whatever_its_record_says_and_each_is_named_once() {
        let asked = request(&[("main", ContainerKind::App, 0, Ask::Whole { count: 2, memory: None })]);
        let text = |cards: &str| {
            format!(
                r#"{{"version":1,"node":"n","time":1,"containers":[{{"name":"main","kind":"app","position":0,"whole":true,"slices":[{cards}]}}]}}"#
            )
        };
        let a = r#"{"gpu":"GPU-a","index":0,"compute":300,"memory":81559}"#;
        let b = r#"{"gpu":"GPU-b","index":1,"compute":1000,"memory":0}"#;
        let Record::Placed(placement) = read(&text(&format!("{a},{b}")), &asked) else { panic!("believed") };
        let amounts: Vec<Share> = placement.plan.grants[0].gpus.amounts().map(|(_, share)| share).collect();
        assert_eq!(amounts, [Share::new(1000, 81_559), Share::new(1000, 0)]);
        let other = Record::Unreadable(Unreadable::OtherRequest);
        assert_eq!(read(&text(&format!("{a},{a}")), &asked), other);
        assert_eq!(read(&text(a), &asked), other);
        for bad in [a.replace("300", "0"), a.replace("300", "1001"), a.replace("81559", "81559,\"count\":1")] {
            assert!(matches!(read(&text(&format!("{bad},{b}")), &asked), Record::Unreadable(_)), "{bad}");
        }
    }

    #[test]
    fn a_share_of_several_cards_serves_no_request() {
        let second = r#",{"gpu":"GPU-a","index":0,"compute":500,"memory":7680}]}]}"#;
        let text = SHARE.replace("]}]}", second);
        let asked = request(&[("main", ContainerKind::App, 0, Ask::Share(Share::new(500, 7680)))]);
        assert_eq!(read(&text, &asked), Record::Unreadable(Unreadable::OtherRequest));
    }

    /// As gpu-admission wrote it.
    #[test]
    fn the_compatibility_record_names_cards_by_index() {
        let (request, annotations) = believed();
        let keys = Keys::default();
        let placement = compat::decode(&annotations, &keys, &request).unwrap().unwrap();
        assert_eq!(
            placement.plan.to_string(),
            "main: index-0 (50 core, 2560 MiB); train: index-1, index-2 (whole)"
        );
        assert_eq!(compat::encode(&placement, &keys), annotations);
    }
}
