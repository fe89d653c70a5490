//! Whole histories of one node's ledger against a naive list of holds (`model/reference.rs`): binds whose answers are
//! late or lost, pods that other clients bind or change, edited annotations, relists, cards that come and go, lost
//! lists of cards, restarts. `PROPTEST_CASES` sets how many histories are tried.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "model/reference.rs"]
mod reference;

use std::collections::BTreeSet;
use std::sync::Arc;

use kerf::device::{Device, Health, Inventory};
use kerf::ids::{PodRef, PodUid};
use kerf::ledger::{Held, NodeLedger, State};
use kerf::placement::Planner;
use kerf::plan::{CountedDevice, DeviceRef, Grant, Plan};
use kerf::policy::Policy;
use kerf::request::{Ask, ContainerKind, ContainerRequest, GpuRequest, PodRequest};
use kerf::shares::{Arrangement, Counted, PerCard};
use kerf::unfit::Unfit;
use kerf::units::{Mib, Milli, Share, Timestamp};
use proptest::prelude::*;
use proptest_state_machine::{StateMachineTest, prop_state_machine};
use reference::{CARDS, Condition, Hold, Model, Node, PATIENCE, SHARE, Stage, Step, Truth, Uid};

fn name(uid: Uid) -> PodUid {
    format!("p{uid:03}").into()
}

/// What the cards of the model are offered as.
const RESOURCE: &str = "example.com/gpu";

fn number(uid: &PodUid) -> Uid {
    uid.as_str()[1..].parse().unwrap()
}

fn pod(uid: Uid) -> PodRef {
    PodRef::new("ns", format!("p{uid:03}"))
}

fn request(uid: Uid) -> Arc<GpuRequest> {
    let ask = match reference::ask(uid) {
        (compute, 0, 0) => {
            let count = u32::try_from(compute / SHARE).unwrap();
            Ask::Counted(Counted { resource: RESOURCE.into(), count })
        }
        (compute, memory, 0) => Ask::Share(Share::new(u32::try_from(compute).unwrap(), memory)),
        (_, _, count) => Ask::Whole { count: u32::try_from(count).unwrap(), memory: None },
    };
    let container = ContainerRequest { name: "main".into(), kind: ContainerKind::App, position: 0, ask };
    Arc::new(GpuRequest {
        containers: vec![container],
        limit: None,
        policy: None,
        isolation: None,
        arrangement: Arrangement::SameCard,
        priority: 0,
    })
}

fn plan(uid: Uid, cards: &[usize]) -> Plan {
    let request = request(uid);
    let container = &request.containers[0];
    let device =
        |card: &usize| DeviceRef { id: format!("gpu-{card}").into(), index: u32::try_from(*card).unwrap() };
    let gpus = match &container.ask {
        Ask::Share(_) | Ask::Whole { .. } => {
            let memory = |card: &usize| Mib(CARDS.get(*card).copied().unwrap_or_default());
            Grant::of(&container.ask, cards.iter().map(|card| (device(card), memory(card)))).unwrap()
        }
        Ask::Counted(Counted { resource, count }) => {
            let compute = Milli(u32::try_from(reference::ask(uid).0).unwrap());
            let counted = |card| CountedDevice { device: device(card), count: *count, compute };
            Grant::Counted { resource: resource.clone(), devices: cards.iter().map(counted).collect() }
        }
    };
    let plan = Plan { grants: vec![container.granted(gpus)] };
    assert!(plan.serves(&request));
    plan
}

fn held(uid: Uid, hold: &Hold) -> Held {
    match hold {
        Hold::Cards(cards) => Held::Plan(plan(uid, cards)),
        Hold::Unreadable => Held::Unreadable,
    }
}

fn inventory(cards: &[Condition; 3]) -> Inventory {
    let present =
        (0u32..).zip(cards.iter().zip(CARDS)).filter(|(_, (condition, _))| **condition != Condition::Absent);
    let device = |(index, (condition, memory)): (u32, (&Condition, u64))| {
        let mut device = Device::new(format!("gpu-{index}"), index, Mib(memory));
        device.offers.insert(RESOURCE.into(), PerCard::new(u32::try_from(1000 / SHARE).unwrap()).unwrap());
        device.cordoned = *condition == Condition::Cordoned;
        device.health = if *condition == Condition::Ill { Health::Unhealthy } else { Health::Healthy };
        device
    };
    Inventory::new(present.map(device).collect())
}

#[derive(Default)]
struct Ledger {
    ledger: NodeLedger,
    planner: Planner,
    edits: usize,
}

impl Ledger {
    fn set_node(&mut self, node: &Node) {
        match node {
            Node::Unknown => self.ledger.forget_node(),
            Node::Closed(_) => self.ledger.close(Unfit::LostInventory),
            Node::Known(cards) => self.ledger.set_inventory(&inventory(cards)),
        }
    }

    fn observe(&mut self, uid: Uid, truth: &Truth, epoch: u64) -> String {
        let held = held(uid, &truth.hold);
        // independent of its present annotations
        self.edits += 1;
        let mut request = GpuRequest::clone(&request(uid));
        request.policy = Policy::ALL.get(self.edits % 7).copied();
        request.limit = self.edits.is_multiple_of(3).then_some(Milli(1000));
        let request = Arc::new(request);
        format!(
            "{:?}",
            self.ledger.observe(&PodRequest::new(&name(uid), &pod(uid), &request), held, truth.confirmed, epoch)
        )
    }

    /// Performs the step as the extender would, and returns the ledger's answers.
    fn step(&mut self, model: &Model, step: Step) -> Vec<String> {
        let (now, epoch) = (Timestamp(model.now), model.epoch);
        let deadline = now.plus(PATIENCE);
        let ledger = &mut self.ledger;
        match step {
            Step::Assume(uid) => {
                let (name, pod, request) = (name(uid), pod(uid), request(uid));
                let policy = Policy::Binpack;
                let plan =
                    self.planner.assume(ledger, &PodRequest::new(&name, &pod, &request), policy, deadline, epoch);
                let cards =
                    plan.ok().map(|plan| plan.grants[0].gpus.devices().map(|d| d.index).collect::<Vec<_>>());
                vec![format!("{cards:?}")]
            }
            Step::Reserve(uid, hold) => {
                let Held::Plan(plan) = held(uid, &hold) else { panic!("only readable records are reserved") };
                vec![
                    ledger
                        .reserve(&PodRequest::new(&name(uid), &pod(uid), &request(uid)), plan, deadline, epoch)
                        .to_string(),
                ]
            }
            Step::Answer(uid) => {
                ledger.bound(&name(uid), epoch);
                vec![]
            }
            Step::Refuse(uid) => vec![ledger.forget(&name(uid)).to_string()],
            Step::Silence(uid) => {
                ledger.unanswered(&name(uid));
                vec![]
            }
            Step::Reap => {
                ledger.settle(now, PATIENCE);
                let overdue = ledger.overdue(now);
                let ask = |(uid, _): (PodUid, PodRef)| match model.api.get(&number(&uid)) {
                    Some(truth) => self.observe(number(&uid), truth, epoch),
                    None => self.ledger.expire(&uid, now).to_string(),
                };
                overdue.into_iter().map(ask).collect()
            }
            Step::Expire(uid) => vec![ledger.expire(&name(uid), now).to_string()],
            Step::Watch(uid) => vec![self.observe(uid, &model.api[&uid], epoch)],
            Step::WatchOld(uid) => {
                let old = Truth { confirmed: false, ..model.api[&uid].clone() };
                vec![self.observe(uid, &old, epoch)]
            }
            Step::Gone(uid) => vec![ledger.release(&name(uid)).to_string()],
            Step::ListEnd => {
                let seen = model.listed.iter().map(|(uid, truth)| self.observe(*uid, truth, epoch));
                let mut answers: Vec<String> = seen.collect();
                let missing: Vec<Uid> = self.ledger.release_missing(epoch).iter().map(number).collect();
                answers.push(format!("{missing:?}"));
                answers
            }
            Step::Cards(_) | Step::ForgetNode => {
                self.set_node(&model.node);
                vec![]
            }
            Step::Restart => {
                *self = Self::default();
                // pods may arrive before their node
                let seen = model.api.iter().map(|(uid, truth)| self.observe(*uid, truth, epoch)).collect();
                self.set_node(&model.node);
                seen
            }
            Step::Land(_) | Step::Tick(_) | Step::Appear(..) | Step::Change(..) | Step::Confirm(_) => vec![],
            Step::Delete(_) | Step::ListBegin => vec![],
        }
    }

    fn overcommitted(&self) -> BTreeSet<u32> {
        let cards = self.ledger.cards().iter();
        cards.filter(|card| card.overcommitted()).map(|card| card.device().index).collect()
    }
}

struct LedgerTest;

impl StateMachineTest for LedgerTest {
    type SystemUnderTest = Ledger;
    type Reference = Model;

    fn init_test(model: &Model) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.set_node(&model.node);
        ledger
    }

    fn apply(mut ledger: Ledger, model: &Model, step: Step) -> Ledger {
        let before = ledger.overcommitted();
        // records and the API server may give a card too much; kerf's own decisions never do
        let told = matches!(step, Step::Watch(_) | Step::WatchOld(_) | Step::Reap | Step::ListEnd | Step::Restart);
        let outside = told || matches!(step, Step::Reserve(..) | Step::Cards(_));
        assert_eq!(ledger.step(model, step.clone()), model.answers, "{step:?}");
        let after = ledger.overcommitted();
        assert!(outside || after.is_subset(&before), "{step:?} overcommits {after:?}, before {before:?}");
        ledger
    }

    fn check_invariants(Ledger { ledger, .. }: &Ledger, model: &Model) {
        let used = |card: &kerf::ledger::Card| {
            let used = card.used();
            (card.device().index as usize, u64::from(used.compute.0), used.memory.0, card.pods())
        };
        assert_eq!(ledger.cards().iter().map(used).collect::<Vec<_>>(), model.used(), "what is taken of each card");

        let known: Vec<(Uid, Held, Stage, bool)> = ledger
            .commitments()
            .iter()
            .map(|(uid, c)| (number(uid), c.held.clone(), stage(c.state), c.confirmed))
            .collect();
        let expected = model.entries.iter();
        let expected = expected.map(|(uid, e)| (*uid, held(*uid, &e.hold), e.stage, e.confirmed));
        assert_eq!(known, expected.collect::<Vec<_>>(), "the commitments");

        for uid in model.told.iter().filter(|uid| model.api.contains_key(uid)) {
            assert!(ledger.commitments().contains_key(&name(*uid)), "pod {uid} is bound, was told, and is lost");
        }
        for card in ledger.cards().iter().filter(|card| card.overcommitted() || !card.usable()) {
            assert_eq!(card.free(), Share::ZERO);
        }
    }
}

fn stage(state: State) -> Stage {
    match state {
        State::Assumed { deadline } => Stage::Assumed(deadline.0),
        State::Bound { deadline } => Stage::Bound(deadline.0),
        State::Observed => Stage::Observed,
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn every_history_leaves_the_ledger_as_a_list_of_holds_would_be(sequential 1..80 => LedgerTest);
}

/// A Node that is registered again has its capacity before its inventory, and its pods still run.
#[test]
fn pods_keep_their_cards_while_the_node_has_no_inventory() {
    let mut ledger = Ledger::default();
    ledger.set_node(&Node::Known([Condition::Fine; 3]));
    let on = |cards: &[usize]| Truth { hold: Hold::Cards(cards.to_vec()), confirmed: true };
    ledger.observe(0, &on(&[1]), 1);
    ledger.observe(4, &on(&[2]), 1);
    ledger.ledger.set_inventory(&Inventory::from_capacity(300, 72));
    let pods: Vec<u32> = ledger.ledger.cards().iter().map(|card| card.pods()).collect();
    assert_eq!(pods, [0, 1, 1]);
    ledger.set_node(&Node::Known([Condition::Fine; 3]));
    let used: Vec<u32> = ledger.ledger.cards().iter().map(|card| card.used().compute.0).collect();
    assert_eq!(used, [0, 500, 1000]);
}
