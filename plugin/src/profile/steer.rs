//! Keeps a profile and the records of its pods together: kubelet is steered to ids of the recorded cards, and what it
//! took is noted, so that a record that kubelet did not follow is corrected.
//!
//! An id names its card, so what a container gets never depends on a record; nothing here can fail a call.

use std::collections::BTreeMap;

use kerf_proto::deviceplugin::ContainerPreferredAllocationRequest;

use super::order::{self, Order};
use super::pool::Pool;
use crate::claim::preference::Wish;
use crate::ids::Resource;
use crate::reconcile::Reconciler;
use crate::roster::Roster;
use crate::state::State;

/// The records of the pods of placed profiles.
#[derive(Clone)]
pub struct Steering {
    /// Where they are kept.
    pub state: State,
    /// Asks kubelet and the API server about them.
    pub reconciler: Reconciler,
}

impl Steering {
    /// Chooses ids for one container.
    pub async fn prefer(
        &self,
        resource: &Resource,
        order: Order,
        pool: &Pool,
        request: &ContainerPreferredAllocationRequest,
    ) -> Vec<String> {
        let size = usize::try_from(request.allocation_size).unwrap_or_default();
        self.reconciler.learn(resource, std::iter::once(size as u64)).await;
        let wish = self.state.claims(|claims| claims.wish(resource, size as u64));
        let (available, must) = (&request.available_device_i_ds, &request.must_include_device_i_ds);
        let places = Places { roster: &self.state.roster(), resource: resource.as_str() };
        choose(&wish, &places, order, pool, available, must, size)
    }

    /// Notes that kubelet took these ids, during its call.
    pub async fn took(&self, resource: &Resource, ids: &[String]) {
        let ids = self.state.roster().spell(resource.as_str(), ids);
        if !self.state.claims(|claims| claims.certain(resource, ids.len())) {
            self.reconciler.learn(resource, std::iter::once(ids.len())).await;
        }
        let key = self.state.claims(|claims| claims.take_counted(resource, ids));
        if let Some(key) = key {
            let resource = resource.as_str();
            tracing::debug!(resource, uid = %key.pod, container = %key.container, "shares by count taken");
        }
        self.state.doubt();
    }
}

/// Where ids are.
struct Places<'a> {
    roster: &'a Roster,
    resource: &'a str,
}

impl Places<'_> {
    fn card(&self, id: &str) -> Option<&str> {
        self.roster.card(self.resource, id)
    }
}

/// Ids of the wished cards, as many of each as is wished; the rest in the profile's order, on closed cards last.
fn choose(
    wish: &Wish,
    places: &Places<'_>,
    order: Order,
    pool: &Pool,
    available: &[String],
    must: &[String],
    size: usize,
) -> Vec<String> {
    let mut left: BTreeMap<&str, u32> = wish.cards.iter().map(|(card, count)| (card.as_str(), *count)).collect();
    // of the wished cards: whether the id is one that is still missing there
    let mut counts = |id: &String| {
        let left = places.card(id).and_then(|card| left.get_mut(card)).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    };
    let mut chosen: Vec<String> = must.to_vec();
    for id in &chosen {
        counts(id);
    }
    let mut rest: Vec<&String> = available.iter().filter(|id| !must.contains(id)).collect();
    rest.sort_unstable_by_key(|id| (pool.get(*id).map(|unit| unit.share), *id));
    rest.dedup();
    chosen.extend(rest.into_iter().filter(|id| counts(id)).cloned());
    chosen.truncate(size);
    let open = |id: &&String| {
        chosen.contains(id)
            || places.card(id).is_none_or(|card| !wish.closed.iter().any(|closed| closed.as_str() == card))
    };
    let open: Vec<String> = available.iter().filter(open).cloned().collect();
    let chosen = order::choose(order, pool, &open, &chosen, size);
    if chosen.len() < size { order::choose(order, pool, available, &chosen, size) } else { chosen }
}
