//! An arrangement that the search found, and how it becomes a choice.

use super::super::choice::{Choice, Take, amount};
use crate::ledger::NodeLedger;
use crate::policy::Policy;
use crate::request::{Ask, ContainerKind, GpuRequest};
use crate::unfit::Unfit;
use crate::units::Share;

#[derive(Debug)]
pub(crate) struct Found {
    /// By position of the card: a container that shows in which form (counted shares or not) the pod has the card,
    /// where that is decided.
    pub(super) forms: Vec<Option<usize>>,
    /// Container and card, for long-running containers with shares or whole cards.
    pub(super) picks: Vec<(usize, usize)>,
}

impl Choice {
    /// Puts long-running containers where they were found, and init containers where the pod grows least.
    pub(crate) fn carry_out(
        &mut self,
        node: &NodeLedger,
        request: &GpuRequest,
        found: &Found,
        policy: Policy,
    ) -> Result<(), Unfit> {
        self.clear(node);
        self.takes.iter_mut().zip(&found.forms).for_each(|(take, form)| take.by = *form);
        let share = |at: usize, ask: &Ask, count: u32| {
            node.cards().get(at).map(|card| amount(ask, card.device(), count)).unwrap_or_default()
        };
        for (number, container) in request.containers.iter().enumerate() {
            match &container.ask {
                _ if container.kind == ContainerKind::Init => {}
                Ask::Counted(_) => self.serve(node, request, (number, container), policy)?,
                ask => {
                    for (_, at) in found.picks.iter().filter(|(owner, _)| *owner == number) {
                        self.take(*at, number, container.kind, share(*at, ask, 1), 1);
                    }
                }
            }
        }
        // an init container runs beside the sidecars that start before it, and no others
        self.takes.iter_mut().for_each(|take| take.tally = take.tally.with_sidecars(Share::ZERO));
        for (number, container) in request.containers.iter().enumerate() {
            match container.kind {
                ContainerKind::App => {}
                ContainerKind::Init => self.serve(node, request, (number, container), policy)?,
                ContainerKind::Sidecar => {
                    for pick in self.picks.iter().filter(|pick| pick.container == number) {
                        if let Some(Take { tally, .. }) = self.takes.get_mut(pick.card) {
                            let sidecars = tally.beside(ContainerKind::Init);
                            let own = share(pick.card, &container.ask, pick.count);
                            *tally = tally.with_sidecars(sidecars.saturating_add(own));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
