//! Which pods must leave a node so that another one fits on its cards.
//!
//! kube-scheduler chooses its victims by a node's totals, and of what it frees no one card may be free enough. This is its
//! own method, applied to cards: all that may go are taken away, and come back one by one, the most important first, as
//! long as the pod still fits. Who does not come back has to go. Among equals it depends on the order who that is, so
//! several orders are tried, and the choice is that with the least important victims, then the fewest, then the least
//! that they take.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{Planner, Policy};
use crate::ids::PodUid;
use crate::ledger::{Commitment, NodeLedger, State};
use crate::request::GpuRequest;
use crate::units::Share;

/// The pods that must leave `ledger`'s node so that `request` fits there: none where it fits already. `None` where it
/// does not fit even after all have left that may: those of a lower priority, as the API server has shown them bound.
/// Of equals those leave first that are in `chosen`, since something else speaks against them already.
pub fn victims(
    planner: &mut Planner,
    ledger: &NodeLedger,
    request: &GpuRequest,
    policy: Policy,
    chosen: &BTreeSet<PodUid>,
) -> Option<BTreeSet<PodUid>> {
    let mut fits = |gone: &BTreeSet<PodUid>| planner.fit(&ledger.without(gone), request, policy).is_ok();
    if fits(&BTreeSet::new()) {
        return Some(BTreeSet::new());
    }
    let may_go = |known: &Commitment| known.state == State::Observed && known.request.priority < request.priority;
    let mut pods: Vec<(&PodUid, &Commitment)> =
        ledger.commitments().iter().filter(|(_, known)| may_go(known)).collect();
    let all: BTreeSet<PodUid> = pods.iter().map(|(uid, _)| (*uid).clone()).collect();
    if !fits(&all) {
        return None;
    }
    let mut best: Option<(Cost, BTreeSet<PodUid>)> = None;
    for order in [small_first, large_first] {
        pods.sort_by_key(|(uid, known)| {
            (Reverse(known.request.priority), chosen.contains(*uid), order(known), *uid)
        });
        let mut gone = all.clone();
        for (uid, _) in &pods {
            gone.remove(*uid);
            if !fits(&gone) {
                gone.insert((*uid).clone());
            }
        }
        let cost = cost(pods.iter().filter(|(uid, _)| gone.contains(*uid)).map(|(_, known)| *known));
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, gone));
        }
    }
    best.map(|(_, victims)| victims)
}

/// The highest priority among the victims, their number, and the compute and memory that they take.
type Cost = (i32, usize, u64, u64);

fn cost<'a>(victims: impl Iterator<Item = &'a Commitment>) -> Cost {
    victims.fold((i32::MIN, 0, 0, 0), |(priority, count, compute, memory), known| {
        let taken = taken(known);
        let (more_compute, more_memory) = (u64::from(taken.compute.0), taken.memory.0);
        (
            priority.max(known.request.priority),
            count + 1,
            compute + more_compute,
            memory.saturating_add(more_memory),
        )
    })
}

fn taken(known: &Commitment) -> Share {
    known.holds().iter().fold(Share::ZERO, |sum, hold| sum.saturating_add(hold.share))
}

fn small_first(known: &Commitment) -> (u64, u64) {
    let taken = taken(known);
    (u64::from(taken.compute.0), taken.memory.0)
}

fn large_first(known: &Commitment) -> (u64, u64) {
    let (compute, memory) = small_first(known);
    (u64::MAX - compute, u64::MAX - memory)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::device::{Device, Inventory};
    use crate::ids::PodRef;
    use crate::ledger::Held;
    use crate::plan::{Form, Grant, Plan, Slice};
    use crate::request::{ContainerKind, RawAnnotations, RawContainer};
    use crate::units::Mib;

    fn request(core: u32, memory: u64, priority: i32) -> GpuRequest {
        let (core, memory) = (core.to_string(), memory.to_string());
        let raw = RawContainer {
            name: "main",
            kind: ContainerKind::App,
            core: Some(&core),
            memory: Some(&memory),
            counted: &[],
        };
        let request = GpuRequest::parse([raw], RawAnnotations::default()).unwrap().unwrap();
        GpuRequest { priority, ..request }
    }

    /// Two cards of 100 units of memory, and pods of (uid, card, core, priority) that take as much memory as core.
    fn node(pods: &[(&str, u32, u32, i32)]) -> NodeLedger {
        let cards = (0..2).map(|index| Device::new(format!("GPU-{index}").as_str(), index, Mib(25_600)));
        let mut ledger = NodeLedger::new(&Inventory::new(cards.collect()));
        for (uid, card, core, priority) in pods {
            let asked = request(*core, u64::from(*core), *priority);
            let slice = Slice {
                device: format!("GPU-{card}").as_str().into(),
                index: *card,
                share: Share::new(core * 10, u64::from(*core) * 256),
                count: 1,
            };
            let grant = Grant {
                container: "main".into(),
                kind: ContainerKind::App,
                position: 0,
                form: Form::Share,
                slices: vec![slice],
            };
            let held = Held::Plan(Plan { grants: vec![grant] });
            ledger.observe(&(*uid).into(), &PodRef::new("ns", *uid), &Arc::new(asked), held, true, 1);
        }
        ledger
    }

    fn evict(pods: &[(&str, u32, u32, i32)], core: u32, priority: i32, chosen: &[&str]) -> Option<Vec<String>> {
        let chosen = chosen.iter().map(|uid| (*uid).into()).collect();
        let asked = request(core, u64::from(core), priority);
        let found = victims(&mut Planner::default(), &node(pods), &asked, Policy::Binpack, &chosen)?;
        Some(found.iter().map(|uid| uid.as_str().to_owned()).collect())
    }

    #[test]
    fn nobody_leaves_where_there_is_room() {
        assert_eq!(evict(&[("a", 0, 60, 0)], 100, 10, &["a"]), Some(vec![]));
    }

    #[test]
    fn room_is_made_on_one_card_and_not_in_the_nodes_total() {
        // 40 are free, on two cards; the scheduler would take "c", which frees no card enough
        let pods = [("a", 0, 60, 0), ("b", 1, 60, 0), ("c", 0, 40, 0)];
        assert_eq!(evict(&pods, 50, 10, &["c"]), Some(vec!["b".to_owned()]));
    }

    #[test]
    fn the_least_important_leave_then_the_fewest() {
        assert_eq!(evict(&[("a", 0, 100, 1), ("b", 1, 50, 0), ("c", 1, 50, 0)], 100, 2, &[]).unwrap(), ["b", "c"]);
        assert_eq!(
            evict(&[("a", 0, 60, 0), ("b", 0, 20, 0), ("c", 0, 20, 0), ("d", 1, 100, 9)], 40, 2, &[]).unwrap(),
            ["a"]
        );
        assert_eq!(evict(&[("a", 0, 60, 0), ("b", 0, 40, 0), ("d", 1, 100, 9)], 40, 2, &[]).unwrap(), ["b"]);
    }

    #[test]
    fn of_equals_those_leave_that_are_chosen_already() {
        let pods = [("a", 0, 100, 0), ("b", 1, 100, 0)];
        assert_eq!(evict(&pods, 100, 1, &["a"]).unwrap(), ["a"]);
        assert_eq!(evict(&pods, 100, 1, &["b"]).unwrap(), ["b"]);
    }

    #[test]
    fn equals_and_the_more_important_stay() {
        assert_eq!(evict(&[("a", 0, 100, 5), ("b", 1, 100, 6)], 100, 5, &[]), None);
    }
}
