//! A part of a GPU that a container holds.

use kerf::annotation::isolation::Levels;
use kerf::ledger::Card;
use kerf::plan::{DeviceRef, Grant};
use kerf::request::Ask;
use kerf::units::Share;
use serde::Serialize;

use super::amount::Amount;

/// Shares by count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shares {
    pub resource: String,
    pub count: u32,
}

/// What enforces a container's share.
pub fn level(levels: &Levels, container: &str) -> Option<&'static str> {
    levels.get(container).map(|level| level.as_str())
}

/// A part of a GPU.
#[derive(Clone)]
pub struct Part {
    pub whole: bool,
    pub granted: Amount,
    pub shares: Option<Shares>,
    /// Whether it is known to be this GPU.
    pub certain: bool,
}

impl Part {
    /// On this GPU: a whole one is granted with all that it has. gpu-manager's record does not have its memory.
    #[must_use]
    pub fn on(self, card: &Card) -> Self {
        let capacity: Amount = card.device().capacity().into();
        let more = capacity.memory_mib > self.granted.memory_mib;
        Self { granted: if self.whole && more { capacity } else { self.granted }, ..self }
    }
}

/// The parts of GPUs that a container was granted.
pub fn parts(gpus: &Grant) -> Vec<(&DeviceRef, Part)> {
    let whole = gpus.is_whole();
    let shares = |at: usize| match gpus {
        Grant::Counted { resource, devices } => {
            let count = devices.get(at)?.count;
            Some(Shares { resource: resource.to_string(), count })
        }
        Grant::Share { .. } | Grant::Whole(_) => None,
    };
    let part = |(at, (device, share)): (usize, (_, Share))| {
        (device, Part { whole, granted: share.into(), shares: shares(at), certain: true })
    };
    gpus.amounts().enumerate().map(part).collect()
}

/// What a container may have of a GPU that asks for this.
pub fn perhaps(ask: &Ask, card: &Card) -> Option<Part> {
    let capacity: Amount = card.device().capacity().into();
    let (whole, granted, shares) = match ask {
        Ask::Share(share) => (false, (*share).into(), None),
        Ask::Whole { .. } => (true, capacity, None),
        Ask::Counted(counted) => {
            let offer = card.device().offers.get(&counted.resource)?;
            let compute = offer.compute_of(counted.count).0.into();
            let shares = Shares { resource: counted.resource.to_string(), count: counted.count };
            (false, Amount { compute, memory_mib: 0 }, Some(shares))
        }
    };
    Some(Part { whole, granted, shares, certain: false })
}
