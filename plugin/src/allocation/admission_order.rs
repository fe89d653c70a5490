//! kubelet's latest list, and since when each pod is on it.
//!
//! kubelet admits one pod at a time, and puts it on its list when its turn comes. So during a call it is admitting
//! the pod that came onto the list last. The others are already served, or never will be: a pod without devices
//! that came before another ran before the plugin was installed, or was rejected by a kubelet that lists rejected
//! pods as well.

use std::collections::BTreeMap;

use kerf::ids::PodRef;

use crate::allocation::listing::Listing;
use crate::device::ids::Ids;

#[derive(Clone, Debug, Default)]
pub(super) struct AdmissionOrder(BTreeMap<PodRef, Row>);

#[derive(Clone, Copy, Debug)]
struct Row {
    /// The number of the first list since which every list has shown the pod.
    since: u64,
    /// How many ids the pod holds.
    ids: u64,
    /// The pod of this name is over for the API server: the next pod of this name is a new one.
    over: bool,
}

impl AdmissionOrder {
    /// Takes the list that was asked for as number `number`.
    pub(super) fn take(&mut self, listing: &Listing, number: u64) {
        let mut ids: BTreeMap<&PodRef, u64> = BTreeMap::new();
        for held in &listing.held {
            *ids.entry(&held.pod).or_default() += held.ids.values().map(Ids::len).sum::<u64>();
        }
        let row = |pod: &PodRef| {
            let ids = ids.get(pod).copied().unwrap_or_default();
            // a pod never loses ids, so fewer ids mean a new pod
            let same = self.0.get(pod).filter(|row| row.ids <= ids);
            let (since, over) = same.map_or((number, false), |row| (row.since, row.over));
            (pod.clone(), Row { since, ids, over })
        };
        self.0 = listing.pods.iter().map(row).collect();
    }

    pub(super) fn contains(&self, pod: &PodRef) -> bool {
        self.0.contains_key(pod)
    }

    /// The number of the list on which the pod came; later is greater.
    pub(super) fn since(&self, pod: &PodRef) -> Option<u64> {
        self.0.get(pod).map(|row| row.since)
    }

    /// The API server has no pod of this name any more.
    pub(super) fn over(&mut self, pod: &PodRef) {
        if let Some(row) = self.0.get_mut(pod) {
            row.over = true;
        }
    }

    /// The API server has a new pod of this name, after `number` lists were asked for.
    pub(super) fn begins(&mut self, pod: &PodRef, number: u64) {
        if let Some(row) = self.0.get_mut(pod).filter(|row| row.over) {
            *row = Row { since: number, over: false, ..*row };
        }
    }

    /// kubelet may have restarted: all pods come onto its list again, in any order.
    pub(super) fn forget(&mut self) {
        self.0.values_mut().for_each(|row| row.since = 0);
    }

    /// Pods that came after the list of this number, except those that are over for the API server.
    pub(super) fn after(&self, number: u64) -> impl Iterator<Item = &PodRef> {
        self.0.iter().filter(move |(_, row)| row.since > number && !row.over).map(|(pod, _)| pod)
    }
}
