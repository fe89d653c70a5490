//! Preferred allocation: the vendors' own cases, and laws that hold for all orders.

use std::collections::BTreeSet;

use kerf_plugin::testing::backend::Vendor;
use kerf_plugin::testing::order::{Order, choose, pair_weight};
use kerf_plugin::testing::units::Pool;
use proptest::prelude::*;
use serde_json::json;

use crate::forest::Forest;
use crate::offers::{contract, made};

fn pool(forest: &Forest, flags: &[&str]) -> Pool {
    made(&contract(forest, flags)).resources.into_values().next().unwrap().pool.clone()
}

fn owned(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn chosen(order: Order, pool: &Pool, available: &[String], must: &[String], size: usize) -> BTreeSet<String> {
    choose(order, pool, available, must, size).into_iter().collect()
}

/// Four GPUs of one driver, each in five shares.
fn four_cards() -> Pool {
    let card = |n: u32| json!({ "vendor": "intel", "address": format!("0000:0{n}:00.0"), "card": n });
    let forest = Forest::described(json!({ "cards": [card(0), card(1), card(2), card(3)] }));
    pool(&forest, &["-profile=intel", "-shared-dev-num=5"])
}

#[test]
fn intels_policies() {
    let pool = four_cards();
    let given = owned(&["card0-4", "card1-1", "card0-2", "card2-3", "card1-0", "card3-4", "card3-0"]);
    let none = choose(Order::EachFirst, &pool, &given, &[], 4);
    assert_eq!(none, owned(&["card0-4", "card1-1", "card2-3", "card3-4"]));
    let all: Vec<String> = pool.ids().collect();
    let balanced = chosen(Order::Balanced, &pool, &all, &[], 4);
    assert_eq!(balanced, owned(&["card0-0", "card1-0", "card2-0", "card3-0"]).into_iter().collect());
    let packed = chosen(Order::Sorted, &pool, &all, &[], 4);
    assert_eq!(packed, owned(&["card0-0", "card0-1", "card0-2", "card0-3"]).into_iter().collect());
    let few = owned(&["card0-1", "card0-2", "card0-3", "card1-1"]);
    assert_eq!(choose(Order::EachFirst, &pool, &few, &[], 3), owned(&["card0-1", "card1-1", "card0-2"]));
    assert_eq!(choose(Order::EachFirst, &pool, &few, &[], 6).len(), 4);
}

fn nvidia(cards: u32, replicas: u32) -> (Pool, Vec<String>) {
    let card = |n: u32| json!({ "vendor": "nvidia", "address": format!("0000:0{n}:00.0"), "minor": n, "uuid": format!("GPU-{n}") });
    let forest = Forest::described(json!({ "cards": (0..cards).map(card).collect::<Vec<_>>() }));
    let pool = pool(&forest, &["-profile=nvidia", &format!("--nvidia-replicas={replicas}")]);
    let all = pool.ids().collect();
    (pool, all)
}

/// How many ids of each GPU.
fn spread(ids: &[String]) -> Vec<usize> {
    let mut cards = std::collections::BTreeMap::new();
    for id in ids {
        *cards.entry(id.split_once("::").unwrap().0.to_owned()).or_insert(0usize) += 1;
    }
    cards.into_values().collect()
}

#[test]
fn nvidias_shares_are_distributed_or_packed() {
    let (two, all) = nvidia(2, 4);
    assert_eq!(spread(&choose(Order::Distributed, &two, &all, &[], 4)), [2, 2]);
    assert_eq!(spread(&choose(Order::Packed, &two, &all, &[], 4)), [4]);
    assert_eq!(spread(&choose(Order::Packed, &two, &all, &[], 5)), [4, 1]);
    let (three, all) = nvidia(3, 2);
    assert_eq!(spread(&choose(Order::Packed, &three, &all, &[], 3)), [2, 1]);
    // one share of GPU-1 is taken
    let (two, all) = nvidia(2, 2);
    let free: Vec<String> = all.into_iter().filter(|id| id != "GPU-1::1").collect();
    assert_eq!(spread(&choose(Order::Distributed, &two, &free, &[], 2)), [1, 1]);
    assert_eq!(choose(Order::Packed, &two, &free, &[], 1), ["GPU-1::0"]);
    assert_eq!(choose(Order::Packed, &two, &free, &owned(&["GPU-0::1"]), 1), ["GPU-0::1"]);
}

#[test]
fn amds_cards_are_taken_within_a_hive() {
    let forest = Forest::named("c");
    let pool = pool(&forest, &["-profile=amd"]);
    // test1..test8 in the order of their nodes
    let scan = forest.scan(Vendor::Amd);
    let test = |n: usize| scan.devices[n - 1].device.id.to_string();
    let tests = |ns: &[usize]| ns.iter().map(|n| test(*n)).collect::<Vec<_>>();
    let all = tests(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let check = |available: &[String], size, wanted: &[usize]| {
        assert_eq!(chosen(Order::Connected, &pool, available, &[], size), tests(wanted).into_iter().collect());
    };
    check(&all, 1, &[1]);
    check(&all, 3, &[1, 2, 3]);
    check(&all, 5, &[1, 2, 3, 4, 5]);
    check(&tests(&[3, 4, 5, 6, 7, 8]), 3, &[5, 6, 7]);
}

#[test]
fn amds_partitions_are_taken_of_the_card_with_the_fewest() {
    let forest = Forest::named("d");
    let pool = pool(&forest, &["-profile=amd"]);
    let all: Vec<String> = pool.ids().collect();
    let gpus = ["05", "26", "46", "65", "85", "a6", "c6", "e5"].map(|bus| format!("0000:{bus}:00.0"));
    let test = |n: usize| gpus[n - 1].clone();
    let set = |tests: &[usize], xcps: &[u32]| -> BTreeSet<String> {
        tests.iter().map(|n| test(*n)).chain(xcps.iter().map(|n| format!("amdgpu_xcp_{n}"))).collect()
    };
    let without = |gone: BTreeSet<String>| all.iter().filter(|id| !gone.contains(*id)).cloned().collect::<Vec<_>>();
    let check = |available: &[String], must: &[String], size, wanted| {
        assert_eq!(chosen(Order::Connected, &pool, available, must, size), wanted);
    };
    check(&all, &[], 1, set(&[8], &[]));
    check(&all, &[], 3, set(&[8], &[57, 58]));
    check(&all, &[], 5, set(&[8], &[57, 58, 59, 60]));
    check(&all, &[], 7, set(&[8], &[57, 58, 59, 60, 61, 62]));
    check(&all, &[], 8, set(&[1], &[1, 2, 3, 4, 5, 6, 7]));
    let whole: Vec<String> = (3..=8).map(test).collect();
    check(&whole, &[], 3, set(&[5, 6, 7], &[]));
    check(&whole, &[test(5)], 3, set(&[5, 6, 7], &[]));
    check(&without(set(&[8], &[57, 58])), &[], 4, set(&[], &[59, 60, 61, 62]));
    let taken = set(&[1, 2, 3, 4, 8], &[57]);
    check(&without(taken), &[], 10, set(&[5], &[33, 34, 35, 36, 37, 38, 39, 58, 59]));
}

#[test]
fn pairs_of_partitions_have_amds_weights() {
    let scan = Forest::named("b").scan(Vendor::Amd);
    let first = &scan.devices[0];
    let weights: Vec<u64> = scan.devices[1..].iter().map(|other| pair_weight(first, other)).collect();
    assert_eq!(weights.len(), 31);
    let count = |weight| weights.iter().filter(|known| **known == weight).count();
    // one GPU, one NUMA node: 30; another GPU there: 40; on the other NUMA node: 50
    assert_eq!((count(30), count(40), count(50)), (3, 12, 16));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever kubelet asks: as many as are available, each once, those that must be first.
    #[test]
    fn an_answer_is_always_one_that_kubelet_can_take(
        order in proptest::sample::select(&[Order::EachFirst, Order::Balanced, Order::Sorted, Order::Distributed,
            Order::Packed, Order::Connected][..]),
        free in proptest::collection::vec(any::<bool>(), 20),
        must in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        strange in proptest::collection::vec("[a-z0-9-]{0,8}", 0..3),
        size in 0usize..24,
    ) {
        let pool = four_cards();
        let mut available: Vec<String> =
            pool.ids().zip(&free).filter(|(_, free)| **free).map(|(id, _)| id).collect();
        let known = available.len();
        let must: Vec<String> = must.iter().filter(|_| known > 0).map(|at| at.get(&available).clone()).collect();
        available.extend(strange.into_iter().filter(|id| pool.get(id).is_none()));
        let answer = choose(order, &pool, &available, &must, size);
        let distinct: BTreeSet<&String> = answer.iter().collect();
        let wanted: BTreeSet<&String> = must.iter().collect();
        prop_assert_eq!(answer.len(), size.min(known));
        prop_assert_eq!(distinct.len(), answer.len());
        prop_assert!(answer.iter().all(|id| available.contains(id)));
        let kept = wanted.iter().filter(|id| distinct.contains(**id)).count();
        prop_assert_eq!(kept, wanted.len().min(size));
        prop_assert_eq!(answer, choose(order, &pool, &available, &must, size));
    }
}
