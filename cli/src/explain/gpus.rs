//! What one GPU lacks for a pod, in words.

use kerf::ids::PodUid;
use kerf::ledger::{Card, Held, NodeLedger};
use kerf::request::{Ask, ContainerRequest, GpuRequest};
use kerf::units::Share;
use serde::Serialize;

use crate::amounts::{memory, percent};

/// At most so many pods are named.
const NAMED: usize = 3;

/// What is to say of one GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OfGpu {
    pub index: u32,
    pub uuid: String,
    /// Whether the container that asks for most fits on it now.
    pub fits: bool,
    pub text: String,
}

/// Of each GPU of a node, for the container of the request that is hardest to place. What the pod itself holds does not count.
pub fn all(ledger: &NodeLedger, own: &PodUid, request: &GpuRequest) -> Vec<OfGpu> {
    let Some(hardest) = hardest(request) else { return Vec::new() };
    let without = ledger.commitments().contains_key(own).then(|| ledger.without(|uid| uid == own));
    let others = Others { ledger, own };
    let of = |card: &Card| {
        let lacks = lacks(&others, card, hardest, request);
        let device = card.device();
        let fits = lacks.is_none();
        OfGpu {
            index: device.index,
            uuid: device.id.to_string(),
            fits,
            text: lacks.unwrap_or_else(|| format!("has room: {} free", free(card.free()))),
        }
    };
    without.as_ref().unwrap_or(ledger).cards().iter().map(of).collect()
}

/// The container that needs most of one GPU.
pub fn hardest(request: &GpuRequest) -> Option<&ContainerRequest> {
    request.containers.iter().max_by_key(|own| match &own.ask {
        Ask::Whole { count, .. } => (2, *count, 0),
        Ask::Counted(counted) => (1, counted.count, 0),
        Ask::Share(share) => (0, share.compute.0, share.memory.0),
    })
}

fn free(share: Share) -> String {
    format!("{} and {}", percent(share.compute.0.into()), memory(share.memory.0))
}

/// `None` where it lacks nothing.
fn lacks(others: &Others<'_>, card: &Card, own: &ContainerRequest, request: &GpuRequest) -> Option<String> {
    let device = card.device();
    let (room, now) = (device.capacity(), card.free());
    if device.cordoned {
        return Some("is cordoned (gpu-cordon): it takes no new pod".to_owned());
    }
    if !device.usable() {
        return Some("is unhealthy: it takes no new pod".to_owned());
    }
    if !card.usable() {
        return Some("its node takes no pod".to_owned());
    }
    if card.overcommitted() {
        return Some(format!("its pods hold more than it has{}", others.on(card)));
    }
    if let Some(level) = request.isolation.filter(|level| device.isolation < *level) {
        let is_share = matches!(own.ask, Ask::Share(_));
        if is_share {
            return Some(format!("enforces shares by {}, {} is demanded", device.isolation, level));
        }
    }
    match &own.ask {
        Ask::Share(share) if share.memory > room.memory => {
            Some(format!("has {} in all, {} are wanted", memory(room.memory.0), memory(share.memory.0)))
        }
        Ask::Share(_) if card.undivided() => Some(format!("is shared by count{}", others.on(card))),
        Ask::Share(share) if !share.fits_in(now) => {
            let wanted = free(*share);
            Some(format!("has {} free, {wanted} are wanted{}", free(now), others.on(card)))
        }
        Ask::Whole { .. } if !card.untouched() => Some(format!("is not entirely free{}", others.on(card))),
        Ask::Counted(counted) => {
            let name = counted.resource.as_str();
            if !device.offers.contains_key(name) {
                return Some(format!("is not offered as {name}"));
            }
            match card.free_shares(name) {
                0 => Some(format!("has no share of {name} free{}", others.on(card))),
                free if free < counted.count => {
                    Some(format!("has {free} of the {} shares that are wanted{}", counted.count, others.on(card)))
                }
                _ => None,
            }
        }
        Ask::Share(_) | Ask::Whole { .. } => None,
    }
}

/// The other pods of a node.
struct Others<'a> {
    ledger: &'a NodeLedger,
    own: &'a PodUid,
}

impl Others<'_> {
    /// Who holds a part of a GPU, for the end of a sentence.
    fn on(&self, card: &Card) -> String {
        let others = self.ledger.commitments().iter().filter(|(uid, _)| *uid != self.own);
        let on = others.filter(|(_, known)| match &known.held {
            Held::Plan(plan) => {
                plan.grants.iter().flat_map(|grant| grant.gpus.devices()).any(|device| card.is(device))
            }
            Held::Unreadable => known.taken().any(|taken| card.may_have(taken)),
        });
        let pods: Vec<String> = on.map(|(_, known)| known.pod.to_string()).collect();
        match pods.len() {
            0 => String::new(),
            number if number > NAMED => {
                let named = pods.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                format!("; held by {named} and {} more", number - NAMED)
            }
            _ => format!("; held by {}", pods.join(", ")),
        }
    }
}
