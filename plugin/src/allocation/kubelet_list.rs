//! kubelet's latest list of pods, and during which of its calls it was asked for.
//!
//! What the list means, by the order in which kubelet works:
//!
//! * a pod is put on it before its first container is served, and taken off it when it was rejected or has ended;
//! * after a restart of kubelet, each pod is put on it again when its turn comes, with its ids from the checkpoint;
//! * the ids of a call are on it once kubelet has our answer, so before it makes another call;
//! * ordinary init containers are never on it.
//!
//! So during a call kubelet is admitting the pod that came onto the list last. The others are already served, or
//! never will be: a pod without devices that came before another ran before the plugin was installed, or was
//! rejected by a kubelet that lists rejected pods as well.

use std::collections::{BTreeMap, BTreeSet};

use kerf::ids::{ContainerName, DeviceId, PodRef};
use kerf::units::Share;

use crate::device::ids::{Ids, Resource};

/// kubelet's list of pods, as values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// All pods, also those that hold nothing (yet).
    pub pods: BTreeSet<PodRef>,
    /// Containers that hold ids.
    pub held: Vec<ContainerResources>,
    /// A pod that holds GPUs of this node under another resource domain.
    pub other_domain: Option<OtherDomain>,
}

/// A pod that was given GPUs of this node under another resource domain than this plugin serves. Its GPUs are not
/// counted anywhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pod {pod} holds cards of this node under {resource}: the node takes no pods until those of the other resource domain have ended; drain it first"
)]
pub struct OtherDomain {
    pub pod: PodRef,
    /// The full name of the other domain's resource.
    pub resource: String,
}

/// The ids that one container holds, by kubelet's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerResources {
    /// kubelet does not tell the pod's uid.
    pub pod: PodRef,
    pub container: ContainerName,
    /// Each set of ids has at least one.
    pub ids: BTreeMap<Resource, Ids>,
}

/// A container on the list, as it is counted where no record tells which GPUs it has.
#[derive(Clone, Debug)]
pub(super) struct ListedContainer {
    pub(super) pod: PodRef,
    pub(super) container: ContainerName,
    pub(super) core: Ids,
    /// The GPU, the container's share of it, and whether no other container can have a share of it by memory.
    pub(super) cards: Vec<(DeviceId, Share, bool)>,
}

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
    pods: BTreeMap<PodRef, Row>,
    holders: Vec<ListedContainer>,
    other_domain: Option<OtherDomain>,
}

/// A pod on the list.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The number of the first list since which every list has shown the pod.
    since: u64,
    /// How many ids the pod holds.
    ids: u64,
    /// The pod of this name is over for the API server: the next pod of this name is a new one.
    over: bool,
}

impl Latest {
    /// Takes the list that was asked for as number `number`.
    fn take(&mut self, listing: &Listing, number: u64) {
        let mut ids: BTreeMap<&PodRef, u64> = BTreeMap::new();
        for held in &listing.held {
            *ids.entry(&held.pod).or_default() += held.ids.values().map(Ids::len).sum::<u64>();
        }
        let row = |pod: &PodRef| {
            let ids = ids.get(pod).copied().unwrap_or_default();
            // a pod never loses ids, so fewer ids mean a new pod
            let same = self.pods.get(pod).filter(|row| row.ids <= ids);
            let (since, over) = same.map_or((number, false), |row| (row.since, row.over));
            (pod.clone(), Row { since, ids, over })
        };
        self.pods = listing.pods.iter().map(row).collect();
        self.other_domain.clone_from(&listing.other_domain);
    }
}

#[derive(Clone, Debug, Default)]
pub struct KubeletList {
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
    pub fn question(&mut self, within: bool) -> Question {
        self.questions += 1;
        let noted = if within { self.calls } else { self.calls.saturating_sub(1) };
        Question { number: self.questions, calls: self.calls, noted, within }
    }

    /// Takes the answer to a question, without the pods named in `over`, which are over. `asks`: whether a pod of
    /// this name asks for GPUs now. `None`: the answer to a later question was already taken.
    pub(super) fn take(
        &mut self,
        all: &Listing,
        over: &BTreeSet<PodRef>,
        asks: impl Fn(&PodRef) -> bool,
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
        self.latest.get_or_insert_default().take(&listing, question.number);
        let before = self.departed.len();
        // the name may belong to another pod by now
        self.departed.retain(|pod| all.pods.contains(pod) && !asks(pod));
        self.struck |= self.departed.len() < before;
        Some(listing)
    }

    /// Takes the containers on the latest list that hold ids, as they count where they have no record.
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

    pub fn calls(&self) -> u64 {
        self.calls
    }

    pub fn questions(&self) -> u64 {
        self.questions
    }

    pub fn during_call(&self) -> bool {
        matches!(self.call, Call::Listed { .. })
    }

    /// An Allocate cannot be answered. Returns whether the latest list was asked for during it.
    pub(super) fn refused(&mut self) -> bool {
        let during = self.during_call();
        self.call = Call::Unlisted;
        during
    }

    /// Notes which ids kubelet is advised to take.
    pub fn advise(&mut self, resource: &Resource, ids: &Ids) {
        if let Call::Listed { preferred } = &mut self.call {
            *preferred = Some((resource.clone(), ids.clone()));
        }
    }

    /// Whether an Allocate of these ids belongs to the call that is being answered: kubelet took the ids that it
    /// was advised to take. If not, the list says nothing about this Allocate.
    pub fn advised(&self, resource: &Resource, ids: &Ids) -> bool {
        let Call::Listed { preferred: Some((advised, set)) } = &self.call else { return false };
        advised == resource && set == ids
    }

    /// Whether kubelet has given a list.
    pub fn heard(&self) -> bool {
        self.latest.is_some()
    }

    pub(super) fn contains(&self, pod: &PodRef) -> bool {
        self.since(pod).is_some()
    }

    /// The number of the list on which the pod came; later is greater.
    pub(super) fn since(&self, pod: &PodRef) -> Option<u64> {
        self.latest.as_ref()?.pods.get(pod).map(|row| row.since)
    }

    /// Pods that came after the list of this number, except those that are over for the API server.
    pub(super) fn after(&self, number: u64) -> impl Iterator<Item = &PodRef> {
        let rows = self.latest.iter().flat_map(|latest| &latest.pods);
        rows.filter(move |(_, row)| row.since > number && !row.over).map(|(pod, _)| pod)
    }

    /// Whether a container of another pod than this one is listed with these ids of core.
    pub(super) fn lists_core(&self, core: &Ids, except: Option<&PodRef>) -> bool {
        self.holders().any(|holder| holder.core == *core && Some(&holder.pod) != except)
    }

    /// A pod that holds GPUs of this node under another resource domain, by kubelet's latest list.
    pub fn other_domain(&self) -> Option<&OtherDomain> {
        self.latest.as_ref()?.other_domain.as_ref()
    }

    pub fn departing(&self) -> bool {
        !self.departed.is_empty()
    }

    /// Whether kubelet has removed pods from its list since the last call of this method. Its checkpoint still has
    /// them.
    pub fn struck(&mut self) -> bool {
        std::mem::take(&mut self.struck)
    }

    fn row(&mut self, pod: &PodRef) -> Option<&mut Row> {
        self.latest.as_mut()?.pods.get_mut(pod)
    }

    /// The API server has a new pod of this name.
    pub(super) fn pod_began(&mut self, pod: &PodRef) {
        let since = self.questions;
        if let Some(row) = self.row(pod).filter(|row| row.over) {
            *row = Row { since, over: false, ..*row };
        }
    }

    /// The API server has no pod of this name any more. `held`: kubelet was answered an Allocate for it.
    pub(super) fn pod_over(&mut self, pod: PodRef, held: bool) {
        if let Some(row) = self.row(&pod) {
            row.over = true;
        }
        if held {
            self.departed.insert(pod);
        }
    }

    /// kubelet's connection has ended: a restarted kubelet puts all pods on its list again, in any order.
    pub fn disconnected(&mut self) {
        self.latest.iter_mut().flat_map(|latest| latest.pods.values_mut()).for_each(|row| row.since = 0);
    }
}
