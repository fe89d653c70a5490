//! Everything that is known on this node about pods and the ids they hold.

use std::collections::{BTreeMap, BTreeSet};

use kerf::device::Device;
use kerf::ids::{DeviceId, PodUid};
use kerf::plan::{DeviceRef, Grant, Plan};

use crate::allocation::answers::{AnsweredIds, Answers};
use crate::allocation::kubelet_list::{KubeletList, Question};
use crate::allocation::listing::OtherDomain;
use crate::allocation::pod::{Pod, Seen};
use crate::allocation::pods::{Change, Pods};
use crate::device::ids::{Ids, Resource};

/// What the API server shows, what kubelet lists, and what kubelet was answered. The other files of this folder say
/// what follows from these together.
#[derive(Clone, Debug, Default)]
pub struct Allocations {
    pub(super) cards: BTreeMap<DeviceId, Device>,
    pub(super) pods: Pods,
    pub(super) kubelet: KubeletList,
    pub(super) answers: Answers,
    /// The pod of the last call, while it is incomplete. It asks for GPUs.
    pub(super) open: Option<PodUid>,
}

impl Allocations {
    pub fn set_cards(&mut self, devices: impl IntoIterator<Item = Device>) {
        self.cards = devices.into_iter().map(|device| (device.id.clone(), device)).collect();
    }

    /// A pod as the API server shows it now.
    pub fn see(&mut self, seen: Seen) {
        match seen {
            Seen::Claimant(pod) => self.observe(*pod),
            Seen::Other { uid, reference, stage } => {
                let change = self.pods.observe_other(&uid, &reference, stage);
                self.apply(change);
            }
            Seen::Unreadable { uid } => self.pods.stays(&uid),
        }
    }

    /// A pod that asks for GPUs, as the API server shows it now.
    pub fn observe(&mut self, pod: Pod) {
        let change = self.pods.observe(pod);
        self.apply(change);
    }

    pub fn forget(&mut self, uid: &PodUid) {
        let change = self.pods.delete(uid);
        self.apply(change);
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::None => {}
            Change::Began(reference) => self.kubelet.pod_began(&reference),
            Change::Over { reference, held } => {
                self.open.take_if(|open| self.pods.get(open).is_none());
                self.kubelet.pod_over(reference, held);
            }
        }
    }

    pub fn begin_list(&mut self) {
        self.pods.begin_list();
    }

    /// The complete list has ended: a pod that was not seen since it began is gone.
    pub fn end_list(&mut self) {
        for uid in self.pods.end_list() {
            self.forget(&uid);
        }
        self.pods.forget_ended();
    }

    pub fn known(&self) -> BTreeSet<PodUid> {
        self.pods.known()
    }

    /// To be called before kubelet's list is asked for. `within` a call of kubelet, it has noted all answers
    /// before; at other times the latest may be on its way to it.
    pub fn question(&mut self, within: bool) -> Question {
        self.kubelet.question(within)
    }

    /// kubelet's connection has ended: a restarted kubelet puts all pods on its list again, in any order.
    pub fn disconnected(&mut self) {
        self.kubelet.disconnected();
    }

    /// A pod that holds GPUs of this node under another resource domain, by kubelet's latest list.
    pub fn other_domain(&self) -> Option<&OtherDomain> {
        self.kubelet.other_domain()
    }

    pub fn departing(&self) -> bool {
        self.kubelet.departing()
    }

    /// Whether kubelet has removed pods from its list since the last call of this method. Its checkpoint still has
    /// them.
    pub fn struck(&mut self) -> bool {
        self.kubelet.struck()
    }

    /// Notes which ids kubelet is advised to take.
    pub fn offers(&mut self, resource: &Resource, ids: &Ids) {
        self.kubelet.advise(resource, ids);
    }

    /// Whether an Allocate of these ids belongs to the call that is being answered: kubelet took the ids that it
    /// was advised to take. If not, the list says nothing about this Allocate.
    pub fn expects(&self, resource: &Resource, ids: &Ids) -> bool {
        self.kubelet.advised(resource, ids)
    }

    /// The answers so far whose ids some container may still hold.
    pub fn answers(&self) -> &[AnsweredIds] {
        self.answers.all()
    }

    /// Takes the answers of previous runs of the plugin.
    pub fn remember(&mut self, answers: Vec<AnsweredIds>) {
        self.answers.restore(answers);
    }

    /// The GPU that a record names: by id, or by index where the record has only that.
    pub(super) fn card(&self, device: &DeviceId) -> Option<&Device> {
        match self.cards.get(device) {
            Some(card) => Some(card),
            None => {
                let index = device.as_index()?;
                self.cards.values().find(|card| card.index == index)
            }
        }
    }

    /// The plan with each GPU named as this node knows it; GPUs that are not here keep their names.
    pub(super) fn resolve(&self, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        let resolve = |device: &mut DeviceRef| {
            let card = self.card(&device.id)?;
            *device = DeviceRef { id: card.id.clone(), index: card.index };
            Some(card)
        };
        for grant in &mut plan.grants {
            match &mut grant.gpus {
                Grant::Share { device, .. } => _ = resolve(device),
                Grant::Whole(devices) => {
                    for one in devices {
                        one.memory = resolve(&mut one.device).map_or(one.memory, |card| card.memory);
                    }
                }
                Grant::Counted { devices, .. } => devices.iter_mut().for_each(|one| _ = resolve(&mut one.device)),
            }
        }
        plan
    }
}
