//! How much one planner searches.

use super::*;
use crate::device::Inventory;
use crate::units::{Mib, Share};

/// A node with one card for each of these units of memory.
fn node(units: &[u64]) -> NodeLedger {
    let cards = (0..).zip(units).map(|(index, units)| Device::new(format!("gpu-{index}"), index, Mib(units * 256)));
    NodeLedger::new(&Inventory::new(cards.collect()))
}

/// A pod of containers: kind, hundredths of a card, units of memory.
fn pod(containers: &[(ContainerKind, u32, u64)]) -> GpuRequest {
    let container = |(position, (kind, core, memory)): (u32, &(ContainerKind, u32, u64))| ContainerRequest {
        name: format!("c{position}").as_str().into(),
        kind: *kind,
        position,
        ask: Ask::Share(Share::new(core * 10, memory * 256)),
    };
    GpuRequest {
        containers: (0..).zip(containers).map(container).collect(),
        limit: None,
        policy: None,
        isolation: None,
        arrangement: Arrangement::Any,
        priority: 0,
    }
}

/// A pod that fits in no arrangement, and thousands of steps are needed to find that out.
fn hard() -> (NodeLedger, GpuRequest) {
    use ContainerKind::{App, Init, Sidecar};
    let units = [24, 17, 28, 20, 20, 18, 17, 24, 25, 26, 20, 19, 26, 20, 19, 22];
    let containers = [
        (Sidecar, 44, 20),
        (Sidecar, 41, 16),
        (Sidecar, 46, 27),
        (Init, 47, 27),
        (Sidecar, 41, 12),
        (App, 46, 3),
        (App, 47, 18),
        (App, 45, 12),
    ];
    (node(&units), pod(&containers))
}

/// A pod that fits, but not if the first container takes the fullest card.
fn searched() -> (NodeLedger, GpuRequest) {
    (node(&[60, 50]), pod(&[30, 30, 50].map(|memory| (ContainerKind::App, 10, memory))))
}

#[test]
fn one_planner_searches_for_a_bounded_time_over_all_nodes() {
    let (hard, large) = hard();
    let (easy, small) = searched();
    let mut planner = Planner::default();
    let mut fit = |node, request| {
        let before = planner.steps;
        let fits = planner.fit(node, request, Policy::Binpack);
        (fits, before - planner.steps, planner.exhausted())
    };
    let (fits, steps, _) = fit(&hard, &large);
    let unfit = fits.unwrap_err();
    assert!(steps > 1_000, "{steps}");
    // easy nodes are still found after many hard ones
    let mut nodes = 1;
    let mut all = steps;
    while all < STEPS * 9 / 10 {
        let (fits, steps, _) = fit(&hard, &large);
        assert_eq!(fits, Err(unfit));
        (nodes, all) = (nodes + 1, all + steps);
    }
    assert_eq!(fit(&easy, &small).0, Ok(()));
    // then each container in turn takes what suits it
    while !fit(&hard, &large).2 {
        nodes += 1;
        assert!(nodes < 1_000);
    }
    assert_eq!(fit(&hard, &large), (Err(unfit), 0, true));
    assert_eq!(fit(&easy, &small), (Err(Unfit::Memory), 0, true));
    assert_eq!(fit(&node(&[60, 60]), &small), (Ok(()), 0, true));
}

#[test]
fn another_planner_begins_anew_and_a_patient_one_never_tires() {
    let (hard, large) = hard();
    let (easy, small) = searched();
    for _ in 0..3 {
        assert_eq!(Planner::default().fit(&easy, &small, Policy::Binpack), Ok(()));
    }
    let mut patient = Planner::patient();
    for _ in 0..STEPS / 1_000 {
        assert!(patient.fit(&hard, &large, Policy::Binpack).is_err());
    }
    assert_eq!(patient.fit(&easy, &small, Policy::Binpack), Ok(()));
}
