//! What is taken of a GPU, and whether a pod has room on those that it was placed on.

use std::collections::BTreeSet;

use kerf::device::Health;
use kerf::ids::{ContainerName, DeviceId, PodUid};
use kerf::plan::{Grant, Taken};
use kerf::units::Share;

use crate::allocation::allocations::Allocations;
use crate::allocation::answer::Refusal;
use crate::allocation::entry::Entry;

impl Allocations {
    /// Whether the GPUs of `entry`'s container are here, healthy, and have room for all that the pod takes.
    pub(super) fn room(&self, entry: &Entry, container: &ContainerName) -> Result<(), Refusal> {
        let pod = || entry.pod.reference.clone();
        let Some(placement) = entry.placement() else { return Ok(()) };
        let plan = self.resolve(&placement.plan);
        let named: BTreeSet<&DeviceId> =
            plan.grants.iter().filter(|grant| grant.container == *container).flat_map(Grant::devices).collect();
        for hold in plan.holds().into_iter().filter(|hold| named.contains(&hold.device)) {
            let (device, own) = (hold.device.clone(), hold.is_whole());
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
            let (taken, sharers, whole) = self.used(&device, Some(&entry.pod.uid));
            let alone = !whole && (!own || sharers == 0);
            let fits = own || taken.saturating_add(hold.share).fits_in(card.capacity());
            if !alone || !fits {
                return Err(Refusal::Overcommitted { pod: pod(), device });
            }
        }
        Ok(())
    }

    /// What pods with claims take of a GPU: how much, how many pods, and whether it is closed to shares: one has it to
    /// itself, or its memory is not divided.
    fn used(&self, device: &DeviceId, except: Option<&PodUid>) -> (Share, usize, bool) {
        let mut sum = (Share::ZERO, 0, false);
        for entry in self.pods.values().filter(|entry| entry.holds() && Some(&entry.pod.uid) != except) {
            let Some(placement) = entry.placement() else { continue };
            for hold in self.resolve(&placement.plan).holds().iter().filter(|hold| hold.device == *device) {
                sum = (sum.0.saturating_add(hold.share), sum.1 + 1, sum.2 || hold.taken != Taken::Part);
            }
        }
        let own = except.and_then(|uid| self.pods.get(uid)).map(|entry| &entry.pod.reference);
        for listed in self.without_record().filter(|listed| Some(&listed.pod) != own) {
            for (_, share, closed) in listed.cards.iter().filter(|(card, ..)| card == device) {
                sum = (sum.0.saturating_add(*share), sum.1 + 1, sum.2 || *closed);
            }
        }
        sum
    }

    /// How much of a GPU the pods hold that kubelet has allocated.
    pub fn allocated(&self, device: &DeviceId) -> Share {
        self.used(device, None).0
    }
}
