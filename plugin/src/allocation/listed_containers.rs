//! Containers on kubelet's list that have GPUs and no record of which: of pods without a placement, of pods whose
//! record cannot be read, and of pods that the API server does not show. What they hold is counted as well as
//! possible: by the answers for their ids, or else by the GPUs that the ids name.

use kerf::device::Device;
use kerf::ids::DeviceId;
use kerf::units::{Mib, Milli, Share};

use crate::allocation::allocations::Allocations;
use crate::allocation::listing::{ContainerResources, ListedContainer, Listing};
use crate::allocation::pod::Key;
use crate::device::ids::{Ids, Resource};

impl Allocations {
    /// The containers on this list that have no record, as they are counted.
    pub(super) fn holders(&self, listing: &Listing) -> Vec<ListedContainer> {
        listing.held.iter().filter(|held| !held.ids.is_empty()).map(|held| self.holder(held)).collect()
    }

    /// The containers on kubelet's latest list that have no record, by what is known of the pods now.
    pub(super) fn without_record(&self) -> impl Iterator<Item = &ListedContainer> {
        self.kubelet.holders().filter(|listed| {
            let entry = self.pods.by_reference(&listed.pod).and_then(|uid| self.pods.get(&uid));
            entry.is_none_or(|entry| entry.grant(&listed.container).is_none())
        })
    }

    fn holder(&self, held: &ContainerResources) -> ListedContainer {
        let core = held.ids.get(&Resource::Core).cloned().unwrap_or_default();
        let cards = match self.answered_to(held, &core) {
            Some(cards) => cards,
            None => held.ids.iter().flat_map(|(resource, ids)| self.named(resource, ids)).collect(),
        };
        ListedContainer { pod: held.pod.clone(), container: held.container.clone(), core, cards }
    }

    fn answered_to(&self, held: &ContainerResources, core: &Ids) -> Option<Vec<(DeviceId, Share, bool)>> {
        let key = Key {
            pod: self.pods.by_reference(&held.pod).unwrap_or_else(|| "".into()),
            container: held.container.clone(),
        };
        let cards = self.answers.of(&key, core)?.iter();
        Some(cards.map(|(device, share)| (device.id.clone(), *share, share.compute >= Milli::WHOLE)).collect())
    }

    /// The GPUs that these ids name, with the shares. One GPU may come once for each resource.
    fn named(&self, resource: &Resource, ids: &Ids) -> Vec<(DeviceId, Share, bool)> {
        let taken = |(card, count): (&str, u64)| {
            let device = DeviceId::from(card);
            let whole = self.cards.get(&device).map(Device::capacity);
            match resource {
                Resource::Core => {
                    let compute = Milli::from_core_units(count).unwrap_or(Milli::WHOLE).min(Milli::WHOLE);
                    let all = compute >= Milli::WHOLE;
                    let share = Share { compute, memory: Mib(0) };
                    (device, whole.filter(|_| all).unwrap_or(share), all)
                }
                Resource::Memory => {
                    let memory = Mib::from_memory_units(count).unwrap_or_default();
                    (device, Share { compute: Milli(0), memory }, false)
                }
                Resource::Counted(name) => {
                    let counted = self.counted(name, card, u32::try_from(count).unwrap_or(u32::MAX));
                    let compute = counted.map(|counted| counted.compute).unwrap_or_default();
                    (device, Share { compute, memory: Mib(0) }, true)
                }
            }
        };
        ids.cards().into_iter().map(taken).collect()
    }
}
