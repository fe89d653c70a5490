//! What can happen to a node's ledger, and how often it does in a history.

use proptest::prelude::*;

use super::{Condition, Hold, Model, NO_CARD, Uid, ask};

#[derive(Clone, Debug)]
pub enum Step {
    /// A bind reserves cards; its write is on the way.
    Assume(Uid),
    /// A record is found on a pod that is not bound yet.
    Reserve(Uid, Hold),
    /// The write reaches the API server; nobody knows yet.
    Land(Uid),
    /// The API server's answer arrives: bound, or refused; or none comes.
    Answer(Uid),
    Refuse(Uid),
    Silence(Uid),
    Tick(u64),
    /// The API server is asked about every overdue pod.
    Reap,
    /// An older question about this pod is answered: not bound. It may have been assumed again since.
    Expire(Uid),
    /// The watch shows a bound pod, or that one is gone.
    Watch(Uid),
    /// The watch shows the pod as it was before it was confirmed: a view older than the reaper's.
    WatchOld(Uid),
    Gone(Uid),
    /// Others act: bind a pod, change its record, confirm it, delete it.
    Appear(Uid, Hold),
    Change(Uid, Hold),
    Confirm(Uid),
    Delete(Uid),
    /// The watch breaks and lists anew.
    ListBegin,
    ListEnd,
    /// The node tells of its cards; `None`: unreadably.
    Cards(Option<[Condition; 3]>),
    ForgetNode,
    /// The process starts anew.
    Restart,
}

impl Model {
    /// Whether the world can take this step now.
    pub fn possible(&self, step: &Step) -> bool {
        let (bound, gone) = (|uid| self.api.contains_key(uid), |uid| self.gone.contains(uid));
        match step {
            Step::Assume(uid) => !gone(uid) && (!bound(uid) || self.entries.contains_key(uid)),
            Step::Reserve(uid, _) => !gone(uid) && !bound(uid),
            Step::Land(uid) => self.assumed(*uid) && !gone(uid) && !bound(uid),
            Step::Answer(uid) => {
                let last =
                    |uid| self.entries.get(uid).map(|entry| &entry.hold) == self.api.get(uid).map(|pod| &pod.hold);
                self.assumed(*uid) && last(uid)
            }
            Step::Refuse(uid) => self.assumed(*uid) && !bound(uid),
            Step::Silence(uid) => self.assumed(*uid),
            Step::Watch(uid) | Step::WatchOld(uid) => self.list.is_none() && bound(uid),
            Step::Gone(uid) => self.list.is_none() && gone(uid),
            Step::Expire(uid) => !bound(uid),
            Step::Appear(uid, _) => !bound(uid) && !gone(uid),
            Step::Change(uid, _) | Step::Confirm(uid) => bound(uid),
            Step::Delete(uid) => bound(uid) || self.assumed(*uid),
            Step::ListBegin => self.list.is_none(),
            Step::ListEnd => self.list.is_some(),
            Step::Tick(_) | Step::Reap | Step::Cards(_) | Step::ForgetNode | Step::Restart => true,
        }
    }
}

/// A step that is possible now.
pub fn any(model: &Model) -> BoxedStrategy<Step> {
    use Condition::*;
    let uids = || 0..=model.next;
    let holds = |uid: Uid| match ask(uid).2 {
        2 => vec![vec![0, 1], vec![0, 2], vec![1, NO_CARD]],
        _ => vec![vec![0], vec![1], vec![2], vec![NO_CARD]],
    };
    let records = |step: fn(Uid, Hold) -> Step| -> Vec<Step> {
        let readable = |uid| holds(uid).into_iter().map(Hold::Cards).chain([Hold::Unreadable]);
        uids().flat_map(|uid| readable(uid).map(move |hold| step(uid, hold))).collect()
    };
    let each = |step: fn(Uid) -> Step| -> Vec<Step> { uids().map(step).collect() };
    let mut reserve = records(Step::Reserve);
    reserve.retain(|step| !matches!(step, Step::Reserve(_, Hold::Unreadable)));
    let cards = vec![
        Step::Cards(Some([Fine; 3])),
        Step::Cards(Some([Fine, Ill, Fine])),
        Step::Cards(Some([Fine, Fine, Cordoned])),
        Step::Cards(Some([Absent, Fine, Fine])),
        Step::Cards(Some([Fine, Absent, Ill])),
        Step::Cards(Some([Absent; 3])),
    ];
    let groups = vec![
        (12, each(Step::Assume)),
        (1, reserve),
        (10, each(Step::Land)),
        (8, each(Step::Answer)),
        (3, each(Step::Refuse)),
        (2, each(Step::Silence)),
        (4, vec![Step::Tick(1), Step::Tick(2)]),
        (3, vec![Step::Reap]),
        (1, each(Step::Expire)),
        (10, each(Step::Watch)),
        (1, each(Step::WatchOld)),
        (3, each(Step::Gone)),
        (3, records(Step::Appear)),
        (2, records(Step::Change)),
        (4, each(Step::Confirm)),
        (4, each(Step::Delete)),
        (2, vec![Step::ListBegin]),
        (4, vec![Step::ListEnd]),
        (2, cards),
        (1, vec![Step::Cards(None), Step::ForgetNode]),
        (1, vec![Step::Restart]),
    ];
    let possible = groups.into_iter().filter_map(|(weight, mut steps)| {
        steps.retain(|step| model.possible(step));
        (!steps.is_empty()).then(|| (weight, prop::sample::select(steps)))
    });
    proptest::strategy::Union::new_weighted(possible.collect()).boxed()
}
