//! The planner: which cards of one node serve a request.

mod choice;
mod counted;
mod search;

use choice::Choice;
use search::Search;

use crate::device::Device;
use crate::ledger::{Card, NodeLedger};
use crate::plan::{CountedDevice, DeviceRef, Grant, Plan, WholeDevice};
use crate::policy::Policy;
use crate::request::{Ask, ContainerKind, ContainerRequest, GpuRequest, PodRequest};
use crate::shares::{Arrangement, Counted};
use crate::unfit::Unfit;
use crate::units::Timestamp;

/// The steps of [`search`] that one planner may take, over all nodes: a sixth of a second.
const STEPS: u64 = 1_000_000;

/// Each node gets at most 1/8 of the steps that are left, so that hard nodes leave some for later ones.
const PART: u64 = 8;

/// Plans requests onto nodes, for one call. It holds scratch memory, so that filtering thousands of nodes allocates
/// nothing, and how many steps of the search for arrangements of several containers are left. Without steps, each
/// container in turn takes what suits it best, which may miss an arrangement that fits.
#[derive(Debug)]
pub struct Planner {
    best: Choice,
    other: Choice,
    preferred: Option<usize>,
    /// Steps of the search that are left.
    steps: u64,
}

impl Default for Planner {
    fn default() -> Self {
        Self { best: Choice::default(), other: Choice::default(), preferred: None, steps: STEPS }
    }
}

impl Planner {
    /// For one node: of cards where the pod grows equally, shares go to this one (its position).
    pub fn preferring(card: Option<usize>) -> Self {
        Self { preferred: card, ..Self::default() }
    }

    /// For callers that bound the time themselves: every node gets the full number of steps.
    pub fn patient() -> Self {
        Self { steps: u64::MAX, ..Self::default() }
    }

    /// Whether all steps are used, so that it may miss an arrangement that fits.
    pub fn exhausted(&self) -> bool {
        self.steps < PART
    }

    /// Whether the request fits on the node.
    ///
    /// # Errors
    /// [`Unfit`] where it does not.
    pub fn fit(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Result<(), Unfit> {
        self.fit_in_turn(node, request, policy)
            .or_else(|unfit| if self.fit_by_search(node, request, policy) { Ok(()) } else { Err(unfit) })
    }

    /// Whether the request fits if each container in turn takes what suits it best, which is quick. Where it does not,
    /// a search may find an arrangement ([`Planner::fit_by_search`]).
    ///
    /// # Errors
    /// [`Unfit`] where it does not.
    #[inline]
    pub fn fit_in_turn(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Result<(), Unfit> {
        // most candidates have room to spare, and need no search for the best of their cards
        let room_to_spare = match request.containers.as_slice() {
            [ContainerRequest { ask: Ask::Share(share), .. }] => {
                request.isolation.is_none() && share.fits_in(node.roomiest())
            }
            [ContainerRequest { ask: Ask::Whole { count, memory: None }, .. }] => {
                node.rooms().iter().filter(|room| room.untouched).count() >= *count as usize
            }
            [ContainerRequest { ask: Ask::Counted(counted), .. }] => {
                let room = |card: &Card| card.free_shares(counted.resource.as_str()) >= counted.count;
                request.arrangement != Arrangement::DifferentCards && node.cards().iter().any(room)
            }
            _ => false,
        };
        if room_to_spare { Ok(()) } else { self.choose_in_turn(node, request, policy) }
    }

    /// Whether the request fits in any arrangement of its containers.
    pub fn fit_by_search(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> bool {
        self.search(node, request, policy).is_some()
    }

    /// Whether a search may find room for the request where its containers do not fit in turn.
    pub fn may_search(&self, request: &GpuRequest) -> bool {
        request.containers.len() > 1 && !self.exhausted()
    }

    /// Gives each container in turn what suits it best, in `self.best`.
    fn choose_in_turn(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Result<(), Unfit> {
        if let Some(unfit) = node.without_cards() {
            return Err(unfit);
        }
        let policy = request.policy_or(policy);
        let is_init = |c: &ContainerRequest| c.kind == ContainerKind::Init;
        for choice in [&mut self.best, &mut self.other] {
            choice.preferred = self.preferred;
            choice.isolation = request.isolation.unwrap_or_default();
        }
        if !request.containers.iter().any(is_init) {
            return self.best.choose(node, request, request.containers.iter().enumerate(), policy);
        }
        // long-running containers first suits small init containers, kubelet's order suits large ones
        let (inits, lasting): (Vec<_>, Vec<_>) =
            request.containers.iter().enumerate().partition(|(_, c)| is_init(c));
        let lasting_first = self.best.choose(node, request, lasting.iter().chain(&inits).copied(), policy);
        let in_order = self.other.choose(node, request, request.containers.iter().enumerate(), policy);
        match (lasting_first, in_order) {
            (Err(_), Ok(())) => std::mem::swap(&mut self.best, &mut self.other),
            (Ok(()), Ok(())) if self.other.total() < self.best.total() => {
                std::mem::swap(&mut self.best, &mut self.other);
            }
            (Err(unfit), Err(_)) => return Err(unfit),
            (Ok(()), _) => {}
        }
        Ok(())
    }

    /// Looks for any arrangement in which the containers fit, for `self.best`: one container may take the only card
    /// that another could use.
    fn search(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Option<()> {
        if !self.may_search(request) || node.without_cards().is_some() {
            return None;
        }
        let policy = request.policy_or(policy);
        let steps = search::steps(node, request).min(self.steps / PART);
        let (found, left) = Search::new(node, request, policy, steps).run(node);
        self.steps -= steps - left;
        self.best.carry_out(node, request, &found?, policy).ok()
    }

    /// The cards that the request gets on the node.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit.
    pub fn plan(&mut self, node: &NodeLedger, request: &GpuRequest, policy: Policy) -> Result<Plan, Unfit> {
        if let Err(unfit) = self.choose_in_turn(node, request, policy) {
            self.search(node, request, policy).ok_or(unfit)?;
        }
        // the exact size: collecting `Option`s would begin with room for several
        let mut grants = Vec::with_capacity(request.containers.len());
        for (number, container) in request.containers.iter().enumerate() {
            let gpus = self.grant(node, number, container).ok_or(Unfit::UnknownNode)?;
            grants.push(container.granted(gpus));
        }
        Ok(Plan { grants })
    }

    /// Plans the pod onto the node's cards as they are now and reserves them until `deadline`. A pod that is already
    /// there keeps what it has, so a repeated bind gets the same cards as long as they can take it.
    ///
    /// # Errors
    /// [`Unfit`] where it does not fit, or the cards that it already has are not known; nothing is changed then.
    pub fn assume(
        &mut self,
        node: &mut NodeLedger,
        pod: &PodRequest,
        policy: Policy,
        deadline: Timestamp,
        epoch: u64,
    ) -> Result<Plan, Unfit> {
        let PodRequest { uid, request, .. } = pod;
        if !node.commitments().contains_key(uid) {
            let plan = self.plan(node, request, policy)?;
            node.reserve(pod, plan.clone(), deadline, epoch);
            return Ok(plan);
        }
        let other = if node.keeps(uid)? {
            None
        } else {
            Some(self.plan(&node.without(|other| other == uid), request, policy)?)
        };
        node.reserve_again(uid, other, deadline, epoch).ok_or(Unfit::UnreadableRecord)
    }

    /// The cards that were chosen for a container.
    fn grant(&self, node: &NodeLedger, number: usize, container: &ContainerRequest) -> Option<Grant> {
        let picks = self.best.picks.iter().filter(|pick| pick.container == number);
        let chosen = picks.filter_map(|pick| Some((node.cards().get(pick.card)?.device(), pick.count)));
        let named = |device: &Device| DeviceRef { id: device.id.clone(), index: device.index };
        match &container.ask {
            Ask::Share(share) => {
                let (device, _) = { chosen }.next()?;
                Some(Grant::Share { device: named(device), share: *share })
            }
            Ask::Whole { .. } => {
                let own = |(device, _): (&Device, _)| WholeDevice { device: named(device), memory: device.memory };
                let mut devices: Vec<WholeDevice> = chosen.map(own).collect();
                devices.sort_by_key(|own| own.device.index);
                Some(Grant::Whole(devices))
            }
            Ask::Counted(Counted { resource, .. }) => {
                let own = |(device, count): (&Device, u32)| {
                    let compute = device.offers.get(resource).map(|shares| shares.compute_of(count));
                    CountedDevice { device: named(device), count, compute: compute.unwrap_or_default() }
                };
                let mut devices: Vec<CountedDevice> = chosen.map(own).collect();
                devices.sort_by_key(|own| own.device.index);
                Some(Grant::Counted { resource: resource.clone(), devices })
            }
        }
    }
}

#[cfg(test)]
mod tests;
