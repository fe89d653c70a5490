//! What is taken of a GPU, and whether a pod has room on those that it was placed on.

use std::collections::BTreeSet;

use kerf::device::Health;
use kerf::ids::{ContainerName, DeviceId, PodUid};
use kerf::plan::{Placement, Taken};
use kerf::units::Share;

use crate::allocation::{Allocations, Claim, Entry, Refusal};
use crate::device::ids::{Ids, Resource};

impl Allocations {
    /// Whether the GPUs of this container are here, healthy, and have room for all that the pod takes.
    pub(super) fn room(&self, entry: &Entry, container: &ContainerName) -> Result<(), Refusal> {
        let pod = || entry.pod.reference.clone();
        let Some(placement) = &entry.placement else { return Ok(()) };
        let plan = self.resolve(&placement.plan);
        let named: BTreeSet<&DeviceId> = plan
            .grants
            .iter()
            .filter(|grant| grant.container == *container)
            .flat_map(|grant| grant.gpus.ids())
            .collect();
        for hold in plan.holds().into_iter().filter(|hold| named.contains(&hold.device.id)) {
            let (device, own) = (hold.device.id.clone(), matches!(hold.taken, Taken::Whole(_)));
            let card = self
                .cards
                .get(&device)
                .ok_or_else(|| Refusal::NoSuchCard { pod: pod(), device: device.clone() })?;
            if card.health == Health::Unhealthy {
                return Err(Refusal::Unhealthy { pod: pod(), device });
            }
            let demanded = entry.pod.request.isolation.unwrap_or_default();
            if !own && card.isolation < demanded {
                return Err(Refusal::Isolation { pod: pod(), device, demanded, found: card.isolation });
            }
            let others = self.used(&device, Some(&entry.pod.uid));
            let alone = !others.closed && (!own || others.pods == 0);
            let fits = own || others.share.saturating_add(hold.taken.share()).fits_in(card.capacity());
            if !alone || !fits {
                return Err(Refusal::Overcommitted { pod: pod(), device });
            }
        }
        Ok(())
    }

    /// What pods with claims take of a GPU.
    fn used(&self, device: &DeviceId, except: Option<&PodUid>) -> Used {
        let mut used = Used::default();
        for entry in self.pods.values().filter(|entry| entry.holds() && Some(&entry.pod.uid) != except) {
            let Some(placement) = &entry.placement else { continue };
            for hold in self.resolve(&placement.plan).holds().iter().filter(|hold| hold.device.id == *device) {
                used.add(hold.taken.share(), !matches!(hold.taken, Taken::Part(_)));
            }
        }
        let own = except.and_then(|uid| self.pods.get(uid)).map(|entry| &entry.pod.reference);
        for listed in self.without_record().filter(|listed| Some(&listed.pod) != own) {
            for (_, share, closed) in listed.cards.iter().filter(|(card, ..)| card == device) {
                used.add(*share, *closed);
            }
        }
        used
    }

    /// Whether a container may have this GPU: a pod that is not over was placed on it or was given ids of it, or kubelet
    /// lists such ids. Before the first complete list of the API server and of kubelet any may.
    pub fn may_hold(&self, device: &DeviceId) -> bool {
        if !self.complete || !self.kubelet.heard() {
            return true;
        }
        let named = |ids: Option<&Ids>| ids.is_some_and(|ids| ids.cards().contains_key(device.as_str()));
        let claimed =
            |claim: &Claim| named(claim.core()) || named(claim.ids(&Resource::Memory)) || named(claim.counted());
        let placed = |placement: &Placement| {
            self.resolve(&placement.plan).grants.iter().any(|grant| grant.gpus.ids().any(|id| id == device))
        };
        let has =
            |entry: &Entry| entry.placement.as_ref().is_some_and(placed) || entry.claims.values().any(claimed);
        let listed = || self.kubelet.holders().flat_map(|listed| &listed.cards).any(|(card, ..)| card == device);
        self.pods.values().any(has) || listed()
    }

    /// How much of a GPU is held by pods whose ids kubelet has allocated.
    pub fn allocated(&self, device: &DeviceId) -> Share {
        self.used(device, None).share
    }
}

#[derive(Debug, Default)]
struct Used {
    share: Share,
    pods: usize,
    /// Whether the GPU takes no more shares: a pod has it to itself, or its memory is not divided.
    closed: bool,
}

impl Used {
    fn add(&mut self, share: Share, closed: bool) {
        self.share = self.share.saturating_add(share);
        self.pods += 1;
        self.closed |= closed;
    }
}
