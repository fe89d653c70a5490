//! Which pods to evict from a node so that another one fits on its cards.
//!
//! kube-scheduler chooses its victims by a node's totals; after that, no single card may be free enough. This is its
//! own method, applied to cards: all pods that may leave are removed, and return one by one, those whose eviction
//! breaks a disruption budget first and then the most important, as long as the new pod still fits. Pods that cannot
//! return are the victims. Among equals the order decides, so several orders are tried, and the choice is the set that
//! breaks the fewest budgets, then has the least important victims, then the fewest, then those that take least.
//!
//! Pods that are being deleted anyway cost nothing, and go before all others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::planner::Planner;
use crate::disruption::{self, Budget};
use crate::ids::PodUid;
use crate::ledger::{Card, Commitment, NodeLedger, State, Trial};
use crate::policy::Policy;
use crate::request::{Ask, GpuRequest};
use crate::tally::Tally;
use crate::units::{MEMORY_UNIT, Milli, Share, Timestamp};

/// A pod younger than this, in milliseconds, may be unknown to the scheduler, which would reject it as a victim.
const YOUNG_MS: u64 = 2_000;

pub struct Scene<'a> {
    pub ledger: &'a NodeLedger,
    pub request: &'a GpuRequest,
    pub policy: Policy,
    /// The scheduler's victims.
    pub chosen: &'a BTreeSet<PodUid>,
    /// The disruption budgets; `None` where they are not known: then only the scheduler's victims may be evicted.
    pub budgets: Option<&'a [Arc<Budget>]>,
    /// In milliseconds since 1970.
    pub now: Timestamp,
    /// Whether the time for planning is over.
    pub late: &'a dyn Fn() -> bool,
}

/// What a choice of victims costs. The first field that differs decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// Evictions that break a budget.
    broken: usize,
    /// The highest priority among the victims.
    priority: i32,
    count: usize,
    /// What they take: compute in thousandths of a card, and memory in MiB.
    compute: u64,
    memory: u64,
    /// Victims that the scheduler may not know yet.
    young: usize,
    /// Victims that the scheduler has not chosen.
    others: usize,
}

impl Scene<'_> {
    /// The pods to evict so that the pod fits, in addition to `going`, which leave in any case; empty where those are
    /// enough. Only pods of a lower priority that the API server has shown bound may leave; `None` where the pod does
    /// not fit even after all of them have left, or the time is over. Of equals, pods that the scheduler has chosen
    /// leave first, since it may have other reasons to evict them.
    pub fn victims(&self, planner: &mut Planner, going: &BTreeSet<PodUid>) -> Option<BTreeSet<PodUid>> {
        let priority = self.request.priority;
        let may_go = |known: &Commitment| known.state == State::Observed && known.request.priority < priority;
        let pods = self.pods(|uid, known| !going.contains(uid) && may_go(known));
        let fragile = self.fragile(&pods);
        let leaving = self.ledger.commitments().keys().filter(|uid| going.contains(*uid));
        let uids: Vec<&PodUid> = pods.iter().map(|(uid, _)| *uid).chain(leaving).collect();
        let mut trial = Trial::without(self.ledger, &uids);
        let mut fits =
            |trial: &Trial<'_>| !(self.late)() && planner.fit(trial.node(), self.request, self.policy).is_ok();
        if !fits(&trial) {
            return None;
        }
        (0..pods.len()).for_each(|place| trial.set(place, false));
        if fits(&trial) {
            return Some(BTreeSet::new());
        }
        let mut best: Option<(Cost, BTreeSet<PodUid>)> = None;
        for (large, prefers) in [(false, true), (true, true), (true, false)] {
            (0..pods.len()).for_each(|place| trial.set(place, true));
            let mut order: Vec<usize> = (0..pods.len()).collect();
            // which pods return first; the pods are in order of importance
            order.sort_by_cached_key(|place| {
                pods.get(*place).map(|(uid, known)| {
                    let (compute, memory) = taken(known);
                    let size = if large { (!compute, !memory) } else { (compute, memory) };
                    let broken = fragile.get(*place) == Some(&true);
                    let (chosen, old) = (self.chosen.contains(*uid), !self.young(uid, known));
                    let priority = Reverse(known.request.priority);
                    (known.standing.leaving, !broken, priority, prefers && chosen, prefers && old, size, *place)
                })
            });
            let mut gone = vec![true; pods.len()];
            for place in order {
                trial.set(place, false);
                if fits(&trial) {
                    if let Some(gone) = gone.get_mut(place) {
                        *gone = false;
                    }
                } else {
                    trial.set(place, true);
                }
            }
            if (self.late)() {
                break;
            }
            let gone: Vec<_> = pods.iter().zip(gone).filter(|(_, gone)| *gone).map(|(pod, _)| *pod).collect();
            let cost = self.cost(&gone);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, gone.into_iter().map(|(uid, _)| uid.clone()).collect()));
            }
        }
        best.map(|(_, victims)| victims)
    }

    /// How many of these pods' evictions break a budget.
    pub fn violations(&self, victims: &BTreeSet<PodUid>) -> usize {
        self.broken(&self.pods(|uid, _| victims.contains(uid)))
    }

    /// The pods of the node that are `wanted`, in order of importance.
    fn pods(&self, wanted: impl Fn(&PodUid, &Commitment) -> bool) -> Vec<(&PodUid, &Commitment)> {
        let here = self.ledger.commitments().iter();
        let mut pods: Vec<_> = here.filter(|(uid, known)| wanted(uid, known)).collect();
        pods.sort_by_key(|(uid, known)| (importance(known), *uid));
        pods
    }

    fn broken(&self, pods: &[(&PodUid, &Commitment)]) -> usize {
        self.fragile(pods).into_iter().filter(|broken| *broken).count()
    }

    /// Which of these evictions, one after the other, break a budget.
    fn fragile(&self, pods: &[(&PodUid, &Commitment)]) -> Vec<bool> {
        let Some(budgets) = self.budgets else {
            return pods
                .iter()
                .map(|(uid, known)| !known.standing.leaving && !self.chosen.contains(*uid))
                .collect();
        };
        // a pod that is being deleted is already disrupted, and its budget's controller counts it
        let fresh = pods.iter().filter(|(_, known)| !known.standing.leaving);
        let broken = disruption::violations(budgets, fresh.map(|(_, known)| (&known.pod, &known.standing.labels)));
        let mut broken = broken.into_iter();
        pods.iter().map(|(_, known)| !known.standing.leaving && broken.next().unwrap_or_default()).collect()
    }

    /// Whether the scheduler's view of the node may be older than the pod.
    fn young(&self, uid: &PodUid, known: &Commitment) -> bool {
        let since = known.standing.started.map(|started| started.plus(YOUNG_MS));
        !self.chosen.contains(uid) && since.is_none_or(|since| since > self.now)
    }

    fn cost(&self, victims: &[(&PodUid, &Commitment)]) -> Cost {
        let broken = self.broken(victims);
        let fresh = victims.iter().filter(|(_, known)| !known.standing.leaving);
        let none = Cost { broken, priority: i32::MIN, count: 0, compute: 0, memory: 0, young: 0, others: 0 };
        fresh.fold(none, |cost, (uid, known)| {
            let (compute, memory) = taken(known);
            Cost {
                broken,
                priority: cost.priority.max(known.request.priority),
                count: cost.count + 1,
                compute: cost.compute + compute,
                memory: cost.memory.saturating_add(memory),
                young: cost.young + usize::from(self.young(uid, known)),
                others: cost.others + usize::from(!self.chosen.contains(*uid)),
            }
        })
    }

    /// The scheduler's victims that the node's totals of cards need: the scheduler may have chosen them for their cards
    /// alone. It chose the others for another resource.
    pub fn for_cards(&self) -> BTreeSet<PodUid> {
        let usable = || self.ledger.cards().iter().filter(|card| card.usable()).map(Card::device);
        let total = |amount: &Amount<'_>| match amount {
            Amount::Compute => usable().map(|_| u64::from(Milli::WHOLE.0)).sum::<u64>(),
            // in whole units, as the node advertises it
            Amount::Memory => usable().map(|device| device.memory.to_memory_units() * MEMORY_UNIT.0).sum(),
            Amount::Shares(name) => {
                usable().filter_map(|device| device.offers.get(*name)).map(|shares| u64::from(shares.get())).sum()
            }
        };
        let commitments = self.ledger.commitments();
        let needed = |uid: &&PodUid| {
            amounts(self.request).into_iter().filter(|(_, wanted)| *wanted > 0).any(|(amount, wanted)| {
                let stays = |other: &PodUid| other == *uid || !self.chosen.contains(other);
                let staying = commitments.iter().filter(|(other, _)| stays(other));
                let of =
                    |request| amounts(request).into_iter().filter(|(own, _)| *own == amount).map(|(_, own)| own);
                let used: u64 = staying.flat_map(|(_, known)| of(&known.request)).fold(0, u64::saturating_add);
                total(&amount) < used.saturating_add(wanted)
            })
        };
        self.chosen.iter().filter(|uid| commitments.contains_key(*uid)).filter(needed).cloned().collect()
    }
}

/// A resource whose node total kube-scheduler counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Amount<'a> {
    Compute,
    Memory,
    Shares(&'a str),
}

fn amounts(request: &GpuRequest) -> Vec<(Amount<'_>, u64)> {
    let (mut divided, mut shares) = (Tally::default(), BTreeMap::<&str, Tally<u32>>::new());
    for container in &request.containers {
        let (compute, memory) = match &container.ask {
            Ask::Share(share) => (share.compute, share.memory),
            Ask::Whole { count, memory } => {
                (Milli(count.saturating_mul(Milli::WHOLE.0)), memory.unwrap_or_default())
            }
            Ask::Counted(counted) => {
                let own = shares.entry(counted.resource.as_str()).or_default();
                *own = own.with(container.kind, counted.count);
                continue;
            }
        };
        divided = divided.with(container.kind, Share { compute, memory });
    }
    let peak = divided.peak();
    let divided = [(Amount::Compute, peak.compute.0.into()), (Amount::Memory, peak.memory.0)];
    divided
        .into_iter()
        .chain(shares.into_iter().map(|(name, own)| (Amount::Shares(name), own.peak().into())))
        .collect()
}

/// kube-scheduler's order of importance, the most important first: higher priority, then earlier start.
pub fn importance(known: &Commitment) -> impl Ord + use<> {
    (Reverse(known.request.priority), known.standing.started.is_none(), known.standing.started)
}

fn taken(known: &Commitment) -> (u64, u64) {
    let taken = known.taken().fold(Share::ZERO, |sum, taken| sum.saturating_add(taken.share()));
    (taken.compute.0.into(), taken.memory.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::device::{Device, Inventory};
    use crate::disruption::{Requirement, Selector};
    use crate::ids::PodRef;
    use crate::ledger::{Held, Standing};
    use crate::plan::{DeviceRef, Grant, Plan};
    use crate::request::{ContainerKind, PodRequest, RawAnnotations, RawContainer};
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
            let device = DeviceRef { id: format!("GPU-{card}").as_str().into(), index: *card };
            let share = Share::new(core * 10, u64::from(*core) * 256);
            let grant = asked.containers[0].granted(Grant::Share { device, share });
            let held = Held::Plan(Plan { grants: vec![grant] });
            ledger.observe(
                &PodRequest::new(&(*uid).into(), &PodRef::new("ns", *uid), &Arc::new(asked)),
                held,
                true,
                1,
            );
        }
        ledger
    }

    fn evict(pods: &[(&str, u32, u32, i32)], core: u32, priority: i32, chosen: &[&str]) -> Option<Vec<String>> {
        evict_under(&node(pods), core, priority, chosen, Some(&[]), &[])
    }

    fn evict_under(
        ledger: &NodeLedger,
        core: u32,
        priority: i32,
        chosen: &[&str],
        budgets: Option<&[Arc<Budget>]>,
        going: &[&str],
    ) -> Option<Vec<String>> {
        let uids = |of: &[&str]| of.iter().map(|uid| (*uid).into()).collect::<BTreeSet<PodUid>>();
        let asked = request(core, u64::from(core), priority);
        let (chosen, late) = (uids(chosen), || false);
        let scene = Scene {
            ledger,
            request: &asked,
            policy: Policy::Binpack,
            chosen: &chosen,
            budgets,
            now: Timestamp(10_000),
            late: &late,
        };
        let found = scene.victims(&mut Planner::default(), &uids(going))?;
        Some(found.iter().map(|uid| uid.as_str().to_owned()).collect())
    }

    fn standing(started: u64, labels: &[(&str, &str)]) -> Standing {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Standing { started: Some(Timestamp(started)), leaving: false, labels }
    }

    #[test]
    fn a_budget_is_broken_last_whatever_the_priority() {
        let mut ledger = node(&[("a", 0, 100, 0), ("b", 1, 100, 5)]);
        ledger.describe(&"a".into(), standing(0, &[("app", "web")]));
        ledger.describe(&"b".into(), standing(0, &[]));
        let budget = |allowed| {
            [Arc::new(Budget {
                namespace: "ns".into(),
                selector: Selector(vec![Requirement::Exists("app".into())]),
                allowed,
                disrupted: BTreeSet::new(),
            })]
        };
        let evict =
            |budgets: Option<&[Arc<Budget>]>, core| evict_under(&ledger, core, 9, &[], budgets, &[]).unwrap();
        assert_eq!(evict(Some(&[]), 100), ["a"]);
        assert_eq!(evict(Some(&budget(1)), 100), ["a"]);
        assert_eq!(evict(Some(&budget(0)), 100), ["b"]);
        assert_eq!(evict(Some(&budget(0)), 200), ["a", "b"], "better broken than not to fit");
        // without budgets only the scheduler knows which pods they allow to evict
        assert_eq!(evict_under(&ledger, 100, 9, &["b"], None, &[]).unwrap(), ["b"]);
    }

    #[test]
    fn who_is_being_deleted_goes_first_and_who_the_scheduler_may_not_know_last() {
        let mut ledger = node(&[("a", 0, 100, 3), ("b", 1, 100, 0)]);
        ledger.describe(&"a".into(), Standing { leaving: true, ..standing(0, &[]) });
        ledger.describe(&"b".into(), standing(0, &[]));
        assert_eq!(evict_under(&ledger, 100, 9, &["b"], Some(&[]), &[]).unwrap(), ["a"]);
        let mut ledger = node(&[("a", 0, 100, 0), ("b", 1, 100, 0)]);
        for (young, old) in [("a", "b"), ("b", "a")] {
            ledger.describe(&young.into(), standing(9_000, &[]));
            ledger.describe(&old.into(), standing(7_000, &[]));
            assert_eq!(evict_under(&ledger, 100, 9, &[], Some(&[]), &[]).unwrap(), [old]);
            assert_eq!(evict_under(&ledger, 100, 9, &[young], Some(&[]), &[]).unwrap(), [young], "it knows it");
        }
    }

    #[test]
    fn a_smaller_victim_is_taken_where_it_frees_enough() {
        // the scheduler would evict "big"
        let pods = [("big", 0, 100, 0), ("s1", 1, 50, 0), ("s2", 1, 50, 0)];
        assert_eq!(evict(&pods, 50, 9, &["big"]).unwrap().len(), 1);
        assert_ne!(evict(&pods, 50, 9, &["big"]).unwrap(), ["big"]);
        assert_eq!(evict_under(&node(&pods), 50, 9, &["big"], Some(&[]), &["big"]).unwrap(), [""; 0]);
    }

    #[test]
    fn the_earlier_started_of_equals_stays() {
        let mut ledger = node(&[("a", 0, 100, 0), ("b", 1, 100, 0)]);
        for (early, late) in [("a", "b"), ("b", "a")] {
            ledger.describe(&early.into(), standing(1, &[]));
            ledger.describe(&late.into(), standing(2, &[]));
            assert_eq!(evict_under(&ledger, 100, 9, &[], Some(&[]), &[]).unwrap(), [late]);
        }
    }

    #[test]
    fn out_of_time_is_no_answer() {
        let (ledger, asked, chosen) =
            (node(&[("a", 0, 100, 0), ("b", 1, 100, 0)]), request(50, 50, 9), BTreeSet::new());
        let late = || true;
        let scene = Scene {
            ledger: &ledger,
            request: &asked,
            policy: Policy::Binpack,
            chosen: &chosen,
            budgets: Some(&[]),
            now: Timestamp(0),
            late: &late,
        };
        assert_eq!(scene.victims(&mut Planner::default(), &BTreeSet::new()), None);
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
