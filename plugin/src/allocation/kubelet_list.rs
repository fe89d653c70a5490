//! kubelet's latest list of pods, and during which of its calls it was asked for.
//!
//! What the list means, by the order in which kubelet works:
//!
//! * a pod is put on it before its first container is served, and taken off it when it was rejected or has ended;
//! * after a restart of kubelet, each pod is put on it again when its turn comes, with its ids from the checkpoint;
//! * the ids of a call are on it once kubelet has our answer, so before it makes another call;
//! * ordinary init containers are never on it.

use std::collections::BTreeSet;

use kerf::ids::PodRef;

use crate::allocation::admission_order::AdmissionOrder;
use crate::allocation::listing::{ListedContainer, Listing, OtherDomain};
use crate::device::ids::{Ids, Resource};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    number: u64,
    /// The last Allocate before it.
    calls: u64,
    /// The last Allocate whose answer kubelet had noted by then.
    noted: u64,
    within: bool,
}

impl Question {
    /// Whether call number `call` came after the question, so that the list says nothing of its answer.
    pub(super) fn is_older_than(&self, call: u64) -> bool {
        call > self.calls
    }

    /// Whether kubelet had noted the answer to call number `call`.
    pub(super) fn noted(&self, call: u64) -> bool {
        call <= self.noted
    }
}

/// The call of kubelet that is being answered, or comes next.
#[derive(Clone, Debug, Default)]
enum Call {
    /// No list was asked for during it.
    #[default]
    Unlisted,
    /// The list was asked for during it, and no Allocate has come since.
    Listed {
        /// The ids that kubelet was advised to take: the Allocate of exactly this set belongs to the same call.
        preferred: Option<(Resource, Ids)>,
    },
}

#[derive(Clone, Debug, Default)]
struct Latest {
    order: AdmissionOrder,
    /// The ids of core on it.
    core: BTreeSet<(PodRef, Ids)>,
    holders: Vec<ListedContainer>,
    other_domain: Option<OtherDomain>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct KubeletList {
    /// `None` before kubelet's first answer.
    latest: Option<Latest>,
    call: Call,
    /// How many Allocates were answered.
    calls: u64,
    /// How many lists were asked for.
    questions: u64,
    /// The latest question whose answer was taken.
    taken: u64,
    /// Pods that held ids and are over, until the list is without them.
    departed: BTreeSet<PodRef>,
    /// Pods have left the list since the last call of `struck`.
    struck: bool,
}

impl KubeletList {
    /// To be called before kubelet's list is asked for. `within` a call of kubelet, it has noted all answers
    /// before; at other times the latest may be on its way to it.
    pub(super) fn question(&mut self, within: bool) -> Question {
        self.questions += 1;
        let noted = if within { self.calls } else { self.calls.saturating_sub(1) };
        Question { number: self.questions, calls: self.calls, noted, within }
    }

    /// Takes the answer to a question, without the pods named in `over`, which are over. `asking` are the names of
    /// pods that are not. `None`: the answer to a later question was already taken.
    pub(super) fn take(
        &mut self,
        all: &Listing,
        over: &BTreeSet<&PodRef>,
        asking: &BTreeSet<&PodRef>,
        question: Question,
    ) -> Option<Listing> {
        if question.number <= self.taken {
            return None;
        }
        self.taken = question.number;
        self.call = match std::mem::take(&mut self.call) {
            _ if question.calls != self.calls => Call::Unlisted,
            _ if question.within => Call::Listed { preferred: None },
            call => call,
        };
        let mut listing = all.clone();
        // kubelet frees the ids of these pods before it asks for more
        listing.pods.retain(|pod| !over.contains(pod));
        listing.held.retain(|held| !over.contains(&held.pod));
        let latest = self.latest.get_or_insert_default();
        latest.order.take(&listing, question.number);
        latest.core = listing
            .held
            .iter()
            .filter_map(|held| Some((held.pod.clone(), held.ids.get(&Resource::Core)?.clone())))
            .collect();
        latest.other_domain.clone_from(&listing.other_domain);
        let before = self.departed.len();
        // the name may belong to another pod by now
        self.departed.retain(|pod| all.pods.contains(pod) && !asking.contains(pod));
        self.struck |= self.departed.len() < before;
        Some(listing)
    }

    /// What the containers on the latest list count as where they have no record.
    pub(super) fn set_holders(&mut self, holders: Vec<ListedContainer>) {
        if let Some(latest) = &mut self.latest {
            latest.holders = holders;
        }
    }

    pub(super) fn holders(&self) -> impl Iterator<Item = &ListedContainer> {
        self.latest.iter().flat_map(|latest| &latest.holders)
    }

    /// An Allocate is answered. Returns its number.
    pub(super) fn answered(&mut self) -> u64 {
        self.call = Call::Unlisted;
        self.calls += 1;
        self.calls
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    pub(super) fn questions(&self) -> u64 {
        self.questions
    }

    pub(super) fn during_call(&self) -> bool {
        matches!(self.call, Call::Listed { .. })
    }

    /// An Allocate cannot be answered. Returns whether the latest list was asked for during it.
    pub(super) fn refused(&mut self) -> bool {
        let during = self.during_call();
        self.call = Call::Unlisted;
        during
    }

    /// Notes which ids kubelet is advised to take.
    pub(super) fn advise(&mut self, resource: &Resource, ids: &Ids) {
        if let Call::Listed { preferred } = &mut self.call {
            *preferred = Some((resource.clone(), ids.clone()));
        }
    }

    /// Whether kubelet was advised to take these by the call that is being answered.
    pub(super) fn advised(&self, resource: &Resource, ids: &Ids) -> bool {
        let Call::Listed { preferred: Some((advised, set)) } = &self.call else { return false };
        advised == resource && set == ids
    }

    /// Whether kubelet has given a list.
    pub(super) fn heard(&self) -> bool {
        self.latest.is_some()
    }

    pub(super) fn order(&self) -> Option<&AdmissionOrder> {
        self.latest.as_ref().map(|latest| &latest.order)
    }

    pub(super) fn contains(&self, pod: &PodRef) -> bool {
        self.order().is_some_and(|order| order.contains(pod))
    }

    /// Whether a container of another pod than this one is listed with these ids of core.
    pub(super) fn lists_core(&self, core: &Ids, except: Option<&PodRef>) -> bool {
        let Some(latest) = &self.latest else { return false };
        latest.core.iter().any(|(holder, ids)| ids == core && Some(holder) != except)
    }

    pub(super) fn other_domain(&self) -> Option<&OtherDomain> {
        self.latest.as_ref()?.other_domain.as_ref()
    }

    pub(super) fn departing(&self) -> bool {
        !self.departed.is_empty()
    }

    /// Whether kubelet has removed pods from its list since the last call of this method. Its checkpoint still has
    /// them.
    pub(super) fn struck(&mut self) -> bool {
        std::mem::take(&mut self.struck)
    }

    pub(super) fn pod_began(&mut self, pod: &PodRef) {
        if let Some(latest) = &mut self.latest {
            latest.order.begins(pod, self.questions);
        }
    }

    /// The API server has no pod of this name any more. `held`: kubelet was answered an Allocate for it.
    pub(super) fn pod_over(&mut self, pod: PodRef, held: bool) {
        if let Some(latest) = &mut self.latest {
            latest.order.over(&pod);
        }
        if held {
            self.departed.insert(pod);
        }
    }

    /// kubelet's connection has ended: a restarted kubelet puts all pods on its list again, in any order.
    pub(super) fn disconnected(&mut self) {
        if let Some(latest) = &mut self.latest {
            latest.order.forget();
        }
    }
}
