//! Whether a pod fits on a node, found by trying everything: what the planner is compared with.

use std::collections::BTreeSet;

use kerf::ledger::{Card, NodeLedger};
use kerf::plan::{Grant, Plan};
use kerf::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};
use kerf::shares::Arrangement;
use kerf::units::{Milli, Share};

/// Of one container: how many shares by count of each card, or 1 for a part or all of it.
type Cards = Vec<u32>;

/// Whether there is any arrangement. For few cards, few containers and small counts only.
pub fn exists(node: &NodeLedger, request: &GpuRequest) -> bool {
    let choices: Vec<Vec<Cards>> = request.containers.iter().map(|c| choices(node.cards(), c)).collect();
    any(node, request, &choices, &mut Vec::new())
}

/// Whether the plan is an arrangement.
pub fn is_one(node: &NodeLedger, request: &GpuRequest, plan: &Plan) -> bool {
    let of = |card: &Card, grant: &Grant| match grant {
        Grant::Counted { devices, .. } => {
            devices.iter().find(|one| one.device.id == card.device().id).map_or(0, |one| one.count)
        }
        Grant::Share { .. } | Grant::Whole(_) => u32::from(grant.ids().any(|id| *id == card.device().id)),
    };
    let chosen = plan.grants.iter().map(|grant| node.cards().iter().map(|card| of(card, &grant.gpus)).collect());
    plan.serves(request) && valid(node.cards(), request, &chosen.collect::<Vec<_>>())
}

fn any(node: &NodeLedger, request: &GpuRequest, choices: &[Vec<Cards>], chosen: &mut Vec<Cards>) -> bool {
    let Some(own) = choices.get(chosen.len()) else { return valid(node.cards(), request, chosen) };
    own.iter().any(|cards| {
        chosen.push(cards.clone());
        let found = any(node, request, choices, chosen);
        chosen.pop();
        found
    })
}

/// All ways to give one container what it asks for.
fn choices(cards: &[Card], container: &ContainerRequest) -> Vec<Cards> {
    let (total, each) = match &container.ask {
        Ask::Share(_) => (1, 1),
        Ask::Whole { count, .. } => (*count, 1),
        Ask::Counted(counted) => (counted.count, counted.count),
    };
    let mut all = vec![Vec::new()];
    for _ in cards {
        let more = |cards: &Cards| (0..=each).map(|n| [cards.as_slice(), &[n]].concat()).collect::<Vec<_>>();
        all = all.iter().flat_map(more).filter(|cards: &Cards| cards.iter().sum::<u32>() <= total).collect();
    }
    all.retain(|cards| cards.iter().sum::<u32>() == total);
    all
}

fn valid(cards: &[Card], request: &GpuRequest, chosen: &[Cards]) -> bool {
    // the containers that run at the same time: the long-running ones, and each init container with earlier sidecars
    let all: Vec<usize> = (0..request.containers.len()).collect();
    let kind = |number: usize| request.containers[number].kind;
    let mut moments = vec![all.iter().copied().filter(|n| kind(*n) != ContainerKind::Init).collect::<Vec<_>>()];
    for init in all.iter().copied().filter(|n| kind(*n) == ContainerKind::Init) {
        let before = all.iter().copied().filter(|n| *n < init && kind(*n) == ContainerKind::Sidecar);
        moments.push(before.chain([init]).collect());
    }
    let on = |number: usize, at: usize| chosen[number][at];
    let counted = |number: usize| matches!(request.containers[number].ask, Ask::Counted(_));
    let homes = |at: &usize| all.iter().any(|n| counted(*n) && on(*n, *at) > 0);
    if request.arrangement == Arrangement::SameCard && (0..cards.len()).filter(homes).count() > 1 {
        return false;
    }
    let enough = |number: usize| match request.containers[number].ask {
        Ask::Whole { memory: Some(memory), .. } => {
            let own = cards.iter().enumerate().filter(|(at, _)| on(number, *at) > 0);
            own.map(|(_, card)| card.device().memory.0).sum::<u64>() >= memory.0
        }
        _ => true,
    };
    all.iter().all(|number| enough(*number))
        && cards.iter().enumerate().all(|(at, card)| {
            let users = |of: &[usize]| of.iter().copied().filter(|n| on(*n, at) > 0).collect::<Vec<_>>();
            // a pod has a card in one form
            let forms: BTreeSet<Option<&str>> = users(&all)
                .into_iter()
                .map(|number| match &request.containers[number].ask {
                    Ask::Counted(counted) => Some(counted.resource.as_str()),
                    _ => None,
                })
                .collect();
            forms.len() <= 1 && moments.iter().all(|moment| has_room(card, request, &users(moment), |n| on(n, at)))
        })
}

/// Whether a card has room for these containers at one time.
fn has_room(card: &Card, request: &GpuRequest, users: &[usize], of: impl Fn(usize) -> u32) -> bool {
    let mut used = Share::ZERO;
    let mut shares = 0;
    for number in users {
        match &request.containers[*number].ask {
            Ask::Share(share) => {
                if card.device().isolation < request.isolation.unwrap_or_default() {
                    return false;
                }
                used = used.saturating_add(*share);
            }
            Ask::Whole { .. } => {
                if !card.untouched() || users.len() > 1 {
                    return false;
                }
                used = card.device().capacity();
            }
            Ask::Counted(counted) => {
                let Some(per_card) = card.device().offers.get(&counted.resource) else { return false };
                if !(card.untouched() || card.undivided()) {
                    return false;
                }
                shares += of(*number);
                if shares > per_card.get() {
                    return false;
                }
                used.compute = Milli(used.compute.0 + per_card.compute().0 * of(*number));
            }
        }
    }
    used.fits_in(card.free()) && (request.arrangement != Arrangement::DifferentCards || shares <= 1)
}
