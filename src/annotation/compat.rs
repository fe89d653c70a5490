//! The record that gpu-admission wrote and gpu-manager reads: `<D>/predicate-gpu-idx-<i>` (card indices of
//! container `i` of `spec.containers`, joined by commas), `<D>/predicate-node`, `<D>/predicate-time`
//! (nanoseconds). Written always; read where `gpu-placement` is absent. Init containers have no place in it, and how many
//! shares by count a card gives has none either: such a record alone is not believed.

use std::collections::BTreeMap;

use super::{Keys, Unreadable, bounded};
use crate::ids::DeviceId;
use crate::plan::{Form, Grant, Placement, Plan, Slice};
use crate::request::{Ask, ContainerKind, ContainerRequest, GpuRequest};
use crate::units::{Mib, Milli, Share};

/// The record of `placement`, without `gpu-assigned`.
pub fn encode(placement: &Placement, keys: &Keys) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([
        (keys.predicate_node.clone(), placement.node.to_string()),
        (keys.predicate_time.clone(), placement.time.to_string()),
    ]);
    for grant in placement.plan.grants.iter().filter(|grant| grant.kind == ContainerKind::App) {
        let indices: Vec<String> = grant.slices.iter().map(|slice| slice.index.to_string()).collect();
        annotations.insert(format!("{}{}", keys.predicate_gpu_idx, grant.position), indices.join(","));
    }
    annotations
}

/// Reads the record as a plan for `request`, with cards named by index ([`DeviceId::of_index`]).
/// `Ok(None)` where no container has one.
///
/// # Errors
/// [`Unreadable::Indices`] where a container that needs cards has no readable list of as many.
pub fn decode(
    annotations: &BTreeMap<String, String>,
    keys: &Keys,
    request: &GpuRequest,
) -> Result<Option<Placement>, Unreadable> {
    let prefix = keys.predicate_gpu_idx.as_str();
    let any = annotations.range(prefix.to_owned()..).next().is_some_and(|(key, _)| key.starts_with(prefix));
    if !any {
        return Ok(None);
    }
    let grants = request
        .containers
        .iter()
        .map(|container| {
            let text = match container.kind {
                ContainerKind::App => annotations.get(&format!("{prefix}{}", container.position)),
                ContainerKind::Init | ContainerKind::Sidecar => None,
            };
            grant(container, bounded(text.ok_or(Unreadable::Indices)?)?)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let text = |key: &str| annotations.get(key).map(String::as_str).unwrap_or_default();
    Ok(Some(Placement {
        node: text(&keys.predicate_node).into(),
        time: text(&keys.predicate_time).parse().unwrap_or_default(),
        limit: request.limit,
        plan: Plan { grants },
    }))
}

fn grant(container: &ContainerRequest, text: &str) -> Result<Grant, Unreadable> {
    let (share, form) = match container.ask {
        Ask::Share(share) => (share, Form::Share),
        // how much memory the card has is not in this record; the ledger books all there is
        Ask::Whole { .. } => (Share { compute: Milli::WHOLE, memory: Mib(0) }, Form::Whole),
        Ask::Counted(_) => return Err(Unreadable::Indices),
    };
    let slices = text
        .split(',')
        .map(|index| {
            let index: u32 = index.parse().map_err(|_| Unreadable::Indices)?;
            Ok(Slice { device: DeviceId::of_index(index), index, share, count: 1 })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if container.ask.cards() != Some(slices.len()) {
        return Err(Unreadable::Indices);
    }
    Ok(Grant {
        container: container.name.clone(),
        kind: container.kind,
        position: container.position,
        form,
        slices,
    })
}
