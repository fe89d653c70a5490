//! What kubelet was answered for one container, and what its list has said of that since.
//!
//! ```text
//!   waits --asked--> Assumed --listed--> Confirmed <--listed-- Unlisted --ids given to others--> Released
//!     ^               |   ^                  |                    ^ ^                              |  |
//!     +---- void -----+   |                  +----not listed------+ |                 asked again: |  | listed:
//!                         |                                         |                      Assumed <  > Confirmed
//!                         |    Of ordinary init containers, which are on no list themselves:
//!                         +--pod listed--> PodListed --started, or a later container listed--> Confirmed
//!                         <--pod not listed--
//! ```
//!
//! *Asked* is an Allocate call. A call for a confirmed container (for its other resource) makes the claim
//! [`State::Unlisted`] until the next list. So does an ordinary init container that starts, or that kubelet
//! certainly asks for, while its pod is not listed. *Void* is an assumption whose ids kubelet gives to others, and
//! any claim that a list had to show and does not: kubelet ended before it noted the answer, or it rejected the
//! pod. The container then waits again.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::device::ids::{Ids, Resource};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Answered, and on no list yet.
    #[default]
    Assumed,
    /// Of an ordinary init container: answered, and its pod is on kubelet's latest list. The container itself is
    /// never listed.
    PodListed,
    /// On kubelet's latest list with its ids. Of an ordinary init container: it has started, or a later one is on
    /// the list.
    Confirmed,
    /// It was confirmed; kubelet's latest list is without it, or something was answered for it since.
    Unlisted,
    /// It was confirmed, and kubelet has since given one of its ids to another pod: for kubelet it is over.
    Released,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// kubelet asked for ids for the container.
    Answered,
    Listed,
    /// kubelet's list has a later container of the same pod. Only of ordinary init containers.
    LaterListed,
    /// kubelet's list has the pod. Only of ordinary init containers.
    PodListed,
    /// kubelet's list does not have it so far.
    NotListed,
    /// The container is about to run, or kubelet has certainly asked for it. Only of ordinary init containers.
    Started,
    /// kubelet gave one of its ids to another pod.
    GivenToOthers,
}

impl State {
    /// `None`: the claim is void, and the container waits again.
    pub(super) fn after(self, event: Event) -> Option<Self> {
        use State::{Assumed, Confirmed, PodListed, Released, Unlisted};
        Some(match (event, self) {
            (Event::Answered, Assumed | PodListed | Released) => Assumed,
            (Event::Answered, Confirmed | Unlisted) => Unlisted,
            (Event::Listed, _) => Confirmed,
            (Event::LaterListed | Event::PodListed | Event::NotListed | Event::Started, Released) => Released,
            (Event::LaterListed, _) => Confirmed,
            (Event::PodListed, Assumed | PodListed) => PodListed,
            (Event::PodListed, Confirmed | Unlisted) => Confirmed,
            (Event::NotListed, Assumed | PodListed) => Assumed,
            (Event::NotListed, Confirmed | Unlisted) => Unlisted,
            (Event::Started, Assumed | Unlisted) => Unlisted,
            (Event::Started, PodListed | Confirmed) => Confirmed,
            // ids that kubelet never noted were never given
            (Event::GivenToOthers, Assumed) => return None,
            (Event::GivenToOthers, Unlisted | Released) => Released,
            // kubelet lost count, and lists both
            (Event::GivenToOthers, PodListed | Confirmed) => self,
        })
    }
}

/// The ids of a container that kubelet has asked for so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim {
    /// By resource: each is asked for by a call of its own.
    ids: BTreeMap<Resource, Ids>,
    /// Number of the last call that changed it; zero where this run of the plugin answered none for it.
    call: u64,
    state: State,
}

impl Claim {
    pub(super) fn ids(&self, resource: &Resource) -> Option<&Ids> {
        self.ids.get(resource)
    }

    pub(super) fn core(&self) -> Option<&Ids> {
        self.ids(&Resource::Core)
    }

    pub(super) fn counted(&self) -> Option<&Ids> {
        self.ids.iter().find(|(resource, _)| matches!(resource, Resource::Counted(_))).map(|(_, ids)| ids)
    }

    pub(super) fn names(&self, ids: &Ids) -> bool {
        !self.released() && Resource::VCUDA.iter().any(|resource| self.ids(resource) == Some(ids))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn call(&self) -> u64 {
        self.call
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn released(&self) -> bool {
        self.state == State::Released
    }

    pub(super) fn was_confirmed(&self) -> bool {
        matches!(self.state, State::Confirmed | State::Unlisted | State::Released)
    }

    /// Whether kubelet's latest list has it, or, of an ordinary init container, its pod.
    pub(super) fn listed(&self) -> bool {
        matches!(self.state, State::PodListed | State::Confirmed)
    }

    /// Call number `call` was answered with these ids.
    pub(super) fn answered(&mut self, resource: &Resource, ids: Ids, call: u64) {
        if self.released() {
            self.ids.clear();
        }
        self.ids.insert(resource.clone(), ids);
        self.call = call;
        self.happens(Event::Answered);
    }

    /// Takes the ids of this resource that kubelet's list shows for it.
    pub(super) fn set(&mut self, resource: &Resource, ids: Option<Ids>) {
        match ids {
            Some(ids) => drop(self.ids.insert(resource.clone(), ids)),
            None => drop(self.ids.remove(resource)),
        }
    }

    /// Applies the event. Returns whether the claim is still valid.
    pub(super) fn happens(&mut self, event: Event) -> bool {
        let next = self.state.after(event);
        self.state = next.unwrap_or(self.state);
        next.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 5] =
        [State::Assumed, State::PodListed, State::Confirmed, State::Unlisted, State::Released];

    #[test]
    fn what_kubelet_never_noted_is_void_once_its_ids_are_given_to_others() {
        let after = STATES.map(|state| state.after(Event::GivenToOthers));
        let listed = [Some(State::PodListed), Some(State::Confirmed)];
        assert_eq!(after, [None, listed[0], listed[1], Some(State::Released), Some(State::Released)]);
    }

    #[test]
    fn only_kubelets_question_and_its_list_bring_a_released_claim_back() {
        let back = [(Event::Answered, State::Assumed), (Event::Listed, State::Confirmed)];
        for event in [Event::LaterListed, Event::PodListed, Event::NotListed, Event::Started] {
            assert_eq!(State::Released.after(event), Some(State::Released), "{event:?}");
        }
        for (event, state) in back {
            assert_eq!(State::Released.after(event), Some(state), "{event:?}");
        }
    }

    #[test]
    fn a_confirmed_claim_stays_confirmed_until_its_ids_are_given_to_others() {
        for state in [State::Confirmed, State::Unlisted] {
            for event in [
                Event::Answered,
                Event::Listed,
                Event::LaterListed,
                Event::PodListed,
                Event::NotListed,
                Event::Started,
            ] {
                let after = state.after(event);
                assert!(matches!(after, Some(State::Confirmed | State::Unlisted)), "{state:?} {event:?}");
            }
        }
    }
}
