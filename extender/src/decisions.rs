//! Why pods got their nodes and GPUs: one log line for each placement, and the last ones for `/debug/state`.
//!
//! What that line needs of filter's and prioritize's answers is remembered until then.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use kerf::ids::{NodeName, PodUid};
use kerf::plan::Placement;
use kerf::policy::Policy;
use kerf::request::PodRequest;
use kerf::unfit::Unfit;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::Serialize;
use serde_json::{Value, json};

use crate::verb::BindOutcome;

/// How many decisions are kept.
const KEPT: usize = 64;
/// More pods than are between filter and bind at one time: a bound on memory.
const MAX_OPEN: usize = 1_024;
/// How many nodes the line has beside the chosen one.
const RUNNERS_UP: usize = 3;
/// A plan's text is cut off after this many bytes: a bound on memory.
const MAX_GPUS: usize = 2_048;

/// How many candidates did not fit, by reason.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refusals([u32; Unfit::ALL.len()]);

#[derive(Debug, Default)]
pub(crate) struct Decisions {
    open: Mutex<Open>,
    /// The latest last.
    made: Mutex<VecDeque<Decision>>,
}

/// Pods that filter or prioritize was called for and that are not bound yet.
#[derive(Debug, Default)]
struct Open {
    pods: FxHashMap<PodUid, Considered>,
    /// The same, in order of arrival.
    order: VecDeque<PodUid>,
}

#[derive(Debug, Default)]
struct Considered {
    refusals: Refusals,
    /// Number of candidates that fit.
    fitting: usize,
    /// The best of them, with their scores; empty where prioritize was not called, since only one node was left.
    best: Vec<(NodeName, u8)>,
}

/// As `/debug/state` shows it.
#[derive(Debug, Serialize)]
struct Decision {
    pod: String,
    uid: PodUid,
    node: NodeName,
    /// In nanoseconds since 1970.
    time: u64,
    gpus: String,
    policy: &'static str,
    outcome: &'static str,
    score: Option<u8>,
    fitting: usize,
    runners_up: Vec<RunnerUp>,
    refused: BTreeMap<&'static str, u32>,
}

#[derive(Debug, Serialize)]
struct RunnerUp {
    node: NodeName,
    score: u8,
}

impl Refusals {
    pub fn count<'a>(reasons: impl Iterator<Item = &'a Unfit>) -> Self {
        let mut refusals = Self::default();
        for reason in reasons {
            let at = Unfit::ALL.iter().position(|known| known == reason);
            if let Some(count) = at.and_then(|at| refusals.0.get_mut(at)) {
                *count += 1;
            }
        }
        refusals
    }

    /// The most frequent reason; of those that pods could end by leaving, where there are any.
    pub fn main(&self) -> Option<Unfit> {
        // the first of equal ones, as they are declared
        let most = |reasons: &mut dyn Iterator<Item = (Unfit, u32)>| {
            reasons
                .fold(None, |most: Option<(Unfit, u32)>, next| most.filter(|most| most.1 >= next.1).or(Some(next)))
        };
        let room = most(&mut self.iter().filter(|(reason, _)| reason.resolvable()));
        room.or_else(|| most(&mut self.iter())).map(|(reason, _)| reason)
    }

    /// Each reason that occurred, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Unfit, u32)> {
        Unfit::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// As in `core 3, no-gpu 12`.
impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.iter().map(|(reason, count)| format!("{} {count}", reason.as_str())).collect();
        f.write_str(&all.join(", "))
    }
}

impl Considered {
    fn score(&self, node: &NodeName) -> Option<u8> {
        self.best.iter().find(|(other, _)| other == node).map(|(_, score)| *score)
    }

    fn runners_up(&self, node: &NodeName) -> Vec<RunnerUp> {
        let others = self.best.iter().filter(|(other, _)| other != node).take(RUNNERS_UP);
        others.map(|(node, score)| RunnerUp { node: node.clone(), score: *score }).collect()
    }
}

impl Open {
    fn pod(&mut self, uid: &PodUid) -> &mut Considered {
        if !self.pods.contains_key(uid) {
            if self.order.len() >= MAX_OPEN
                && let Some(oldest) = self.order.pop_front()
            {
                self.pods.remove(&oldest);
            }
            self.order.push_back(uid.clone());
        }
        self.pods.entry(uid.clone()).or_default()
    }

    fn remove(&mut self, uid: &PodUid) -> Option<Considered> {
        let considered = self.pods.remove(uid)?;
        if let Some(at) = self.order.iter().position(|other| other == uid) {
            self.order.remove(at);
        }
        Some(considered)
    }
}

impl Decisions {
    /// Filter has judged the candidates for a pod.
    pub fn filtered(&self, uid: &PodUid, fitting: usize, refusals: Refusals) {
        *self.open.lock().pod(uid) = Considered { refusals, fitting, best: Vec::new() };
    }

    /// The candidates that fit have these scores, the best first.
    pub fn scored(&self, uid: &PodUid, scores: &[(&str, u8)]) {
        let best =
            scores.iter().take(1 + RUNNERS_UP).map(|(node, score)| (NodeName::from(*node), *score)).collect();
        self.open.lock().pod(uid).best = best;
    }

    /// A pod has got its GPUs. `bound`: how its bind ended; `None`: its placement was written on it, and the scheduler
    /// binds the pod itself.
    pub fn made(&self, pod: &PodRequest, placement: &Placement, policy: Policy, bound: Option<BindOutcome>) {
        let (name, uid, node) = (&pod.name, &pod.uid, &placement.node);
        let considered = self.open.lock().remove(uid).unwrap_or_default();
        let mut gpus = placement.plan.to_string();
        let (policy, score) = (policy.as_str(), considered.score(node));
        let (outcome, what) = bound.map_or(("placed", "placed"), |outcome| (outcome.as_str(), "bound"));
        let runners_up = considered.runners_up(node);
        let others: Vec<String> = runners_up.iter().map(|own| format!("{} {}", own.node, own.score)).collect();
        tracing::info!(
            pod = %name, %uid, %node, gpus, policy, score, runners_up = others.join(", "),
            refused = %considered.refusals, outcome, "{what}"
        );
        if gpus.len() > MAX_GPUS {
            gpus.truncate((0..=MAX_GPUS).rev().find(|at| gpus.is_char_boundary(*at)).unwrap_or_default());
        }
        let decision = Decision {
            pod: name.to_string(),
            uid: uid.clone(),
            node: node.clone(),
            time: placement.time,
            gpus,
            policy,
            outcome,
            score,
            fitting: considered.fitting,
            runners_up,
            refused: considered.refusals.iter().map(|(reason, count)| (reason.as_str(), count)).collect(),
        };
        let mut made = self.made.lock();
        if made.len() == KEPT {
            made.pop_front();
        }
        made.push_back(decision);
    }

    /// The latest last.
    pub fn latest(&self) -> Value {
        json!(*self.made.lock())
    }
}

#[cfg(test)]
mod tests {
    use kerf::ids::PodRef;
    use kerf::plan::Plan;
    use kerf::request::GpuRequest;

    use super::*;

    #[test]
    fn pods_that_are_never_bound_leave_nothing_behind() {
        let decisions = Decisions::default();
        for number in 0..3 * MAX_OPEN {
            let uid = PodUid::from(number.to_string());
            decisions.filtered(&uid, 2, Refusals::count([Unfit::Compute, Unfit::Compute].iter()));
            decisions.scored(&uid, &[("a", 10), ("b", 9)]);
        }
        let open = decisions.open.lock();
        assert_eq!((open.pods.len(), open.order.len()), (MAX_OPEN, MAX_OPEN));
        let latest = &open.pods[&PodUid::from((3 * MAX_OPEN - 1).to_string())];
        assert_eq!(latest.refusals.to_string(), "core 2");
        assert_eq!((latest.score(&"b".into()), latest.runners_up(&"b".into()).len()), (Some(9), 1));
    }

    #[test]
    fn the_main_reason_is_one_of_room_where_there_is_one() {
        let main = |reasons: &[Unfit]| Refusals::count(reasons.iter()).main();
        assert_eq!(main(&[]), None);
        assert_eq!(main(&[Unfit::NoCards, Unfit::NoHealthyCard, Unfit::NoHealthyCard]), Some(Unfit::NoHealthyCard));
        assert_eq!(main(&[Unfit::NoCards, Unfit::NoCards, Unfit::Memory]), Some(Unfit::Memory));
        assert_eq!(main(&[Unfit::Memory, Unfit::Compute]), Some(Unfit::Compute), "as they are declared");
    }

    #[test]
    fn a_pod_that_got_its_cards_makes_room_for_another() {
        let decisions = Decisions::default();
        let request = GpuRequest::unreadable().into();
        let waits = PodUid::from("waits");
        decisions.filtered(&waits, 1, Refusals::default());
        for number in 0..3 * MAX_OPEN {
            let uid = PodUid::from(number.to_string());
            decisions.filtered(&uid, 1, Refusals::default());
            let pod = PodRequest::new(&uid, &PodRef::new("ns", "p"), &request);
            decisions.made(&pod, &Placement::new("a", 0, Plan::default()), Policy::default(), None);
        }
        let open = decisions.open.lock();
        assert!(open.pods.contains_key(&waits), "it waits, and nobody else does");
        assert_eq!((open.pods.len(), open.order.len()), (1, 1));
    }
}
