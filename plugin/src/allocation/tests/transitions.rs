//! Which states of claims may follow one another, for the models: the drawing above [`State`], edge by edge.

use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::PodUid;

use crate::allocation::claim::State::{self, Assumed, Confirmed, PodListed, Released, Unlisted};
use crate::allocation::{Allocations, Key};

/// What happened between two checks of the claims.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    /// The API server showed pods.
    News,
    List,
    Allocate,
}

/// The states of all claims at one moment.
pub(super) struct States(BTreeMap<Key, State>);

impl States {
    pub(super) fn of(allocations: &Allocations) -> Self {
        let claims = allocations.pods.values().flat_map(|entry| {
            let key = |name| Key { pod: entry.pod.uid.clone(), container: name };
            entry.claims.iter().map(move |(name, claim)| (key(name.clone()), claim.state()))
        });
        Self(claims.collect())
    }

    /// Asserts that the present states follow from these. Of pods that changed places, each has the other's claims.
    pub(super) fn lead_to(&self, allocations: &Allocations, operation: Operation, exchanged: &BTreeSet<PodUid>) {
        let now = Self::of(allocations).0;
        for key in self.0.keys().chain(now.keys()).filter(|key| !exchanged.contains(&key.pod)) {
            let (from, to) = (self.0.get(key).copied(), now.get(key).copied());
            let gone = !allocations.pods.contains_key(&key.pod);
            assert!(
                from == to || gone || legal(operation, from, to),
                "{operation:?}: {key:?} from {from:?} to {to:?}"
            );
        }
    }
}

fn legal(operation: Operation, from: Option<State>, to: Option<State>) -> bool {
    match operation {
        Operation::News => false,
        Operation::List => matches!(
            (from, to),
            // kubelet lists the container, whatever was assumed; a claim that it had to list and does not is void
            (_, Some(Confirmed) | None)
                | (Some(Assumed), Some(PodListed))
                | (Some(PodListed), Some(Assumed))
                | (Some(Confirmed), Some(Unlisted))
        ),
        Operation::Allocate => matches!(
            (from, to),
            (None | Some(PodListed | Released), Some(Assumed))
                | (Some(Confirmed), Some(Unlisted))
                // its ids were given to another container
                | (Some(Assumed), None)
                | (Some(Unlisted), Some(Released))
                // an init container that kubelet certainly asked for
                | (None | Some(Assumed | PodListed | Released), Some(Unlisted))
        ),
    }
}
