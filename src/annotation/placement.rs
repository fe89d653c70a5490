//! `<D>/gpu-placement`: versioned JSON, by container name and card id.
//!
//! ```
//! # use kerf::annotation::placement::{decode, encode};
//! let text = r#"{"version":1,"node":"gpu-7","time":1700000000000000000,"limit":800,"containers":[
//!     {"name":"main","kind":"app","position":0,"whole":false,
//!      "slices":[{"gpu":"GPU-5c0d","index":3,"compute":500,"memory":7680}]}]}"#;
//! let placement = decode(text).unwrap();
//! assert_eq!(placement.plan.to_string(), "main: GPU-5c0d (50 core, 7680 MiB)");
//! assert_eq!(decode(&encode(&placement)).unwrap(), placement);
//! ```
//!
//! `time` is nanoseconds since 1970, `compute` and `limit` are thousandths of a card, `memory` is MiB of each
//! card. Fields that a reader does not know are an error, as is a version it does not know.
//!
//! A container with counted shares has their resource, and each slice has a `count` instead of `memory`, which is not
//! divided:
//!
//! ```
//! # use kerf::annotation::placement::{decode, encode};
//! let text = r#"{"version":1,"node":"gpu-7","time":1700000000000000000,"containers":[
//!     {"name":"main","kind":"app","position":0,"whole":false,"resource":"deepomatic.com/shared-gpu",
//!      "slices":[{"gpu":"GPU-5c0d","index":3,"compute":20,"count":2}]}]}"#;
//! let placement = decode(text).unwrap();
//! assert_eq!(placement.plan.to_string(), "main: GPU-5c0d (2 x deepomatic.com/shared-gpu)");
//! assert_eq!(decode(&encode(&placement)).unwrap(), placement);
//! ```
//!
//! Versions of kerf without counted shares never read the record of a pod that has them, so they read all others as
//! before.

use serde::{Deserialize, Serialize};

use super::unreadable::{Unreadable, bounded, malformed};
use crate::ids::{ContainerName, DeviceId, NodeName, ResourceName};
use crate::plan::{ContainerGrant, CountedDevice, DeviceRef, Grant, Placement, Plan, Taken, WholeDevice};
use crate::request::{ContainerKind, MAX_CARDS, MAX_CONTAINERS};
use crate::units::{Mib, Milli, Share};

const VERSION: u64 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u64,
    node: NodeName,
    time: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<Milli>,
    containers: Vec<WireContainer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireContainer {
    name: ContainerName,
    kind: ContainerKind,
    position: u32,
    whole: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<ResourceName>,
    slices: Vec<WireSlice>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSlice {
    gpu: DeviceId,
    index: u32,
    compute: Milli,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Mib>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
}

pub fn encode(placement: &Placement) -> String {
    let containers = placement.plan.grants.iter().map(wire_container).collect();
    let wire = Wire {
        version: VERSION,
        node: placement.node.clone(),
        time: placement.time,
        limit: placement.limit,
        containers,
    };
    // strings and integers only: JSON can hold all of it
    serde_json::to_string(&wire).unwrap_or_default()
}

fn wire_container(grant: &ContainerGrant) -> WireContainer {
    let slice = |(device, taken): (&DeviceRef, Taken)| {
        let Share { compute, memory } = taken.share();
        let (memory, count) = match &taken {
            Taken::Part(_) | Taken::Whole(_) => (Some(memory), None),
            Taken::Counted(counted, _) => (None, Some(counted.count)),
        };
        WireSlice { gpu: device.id.clone(), index: device.index, compute, memory, count }
    };
    let resource = match &grant.gpus {
        Grant::Share { .. } | Grant::Whole(_) => None,
        Grant::Counted { resource, .. } => Some(resource.clone()),
    };
    WireContainer {
        name: grant.container.clone(),
        kind: grant.kind,
        position: grant.position,
        whole: grant.gpus.is_whole(),
        resource,
        slices: grant.gpus.taken().map(slice).collect(),
    }
}

/// # Errors
/// [`Unreadable`]; no part of a bad record is used.
pub fn decode(text: &str) -> Result<Placement, Unreadable> {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    let text = bounded(text)?;
    let Version { version } = serde_json::from_str(text).map_err(|e| malformed(&e))?;
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    let wire: Wire = serde_json::from_str(text).map_err(|e| malformed(&e))?;
    if wire.containers.is_empty() || wire.containers.len() > MAX_CONTAINERS {
        return Err(Unreadable::Invalid("number of containers is out of range"));
    }
    if wire.limit.is_some_and(|limit| limit > Milli::WHOLE) {
        return Err(Unreadable::Invalid("limit is above one GPU"));
    }
    let grants = wire.containers.into_iter().map(grant).collect::<Result<Vec<_>, _>>()?;
    let twice = |i: usize, a: &ContainerGrant| grants.iter().skip(i + 1).any(|b| a.container == b.container);
    if grants.iter().enumerate().any(|(i, a)| twice(i, a)) {
        return Err(Unreadable::Invalid("a container is named twice"));
    }
    Ok(Placement { node: wire.node, time: wire.time, limit: wire.limit, plan: Plan { grants } })
}

fn grant(wire: WireContainer) -> Result<ContainerGrant, Unreadable> {
    if wire.slices.is_empty() || wire.slices.len() as u64 > MAX_CARDS {
        return Err(Unreadable::Invalid("number of GPUs is out of range"));
    }
    let slices = wire.slices.into_iter();
    let gpus = match (wire.whole, wire.resource) {
        (false, None) => {
            let mut shares = slices.map(divided).collect::<Result<Vec<_>, _>>()?.into_iter();
            match (shares.next(), shares.next()) {
                (Some((device, share)), None) => Grant::Share { device, share },
                // no request asks for that
                _ => return Err(Unreadable::OtherRequest),
            }
        }
        (true, None) => Grant::Whole(slices.map(whole).collect::<Result<_, _>>()?),
        (false, Some(resource)) if !resource.as_str().is_empty() => {
            Grant::Counted { resource, devices: slices.map(counted).collect::<Result<_, _>>()? }
        }
        (_, Some(_)) => return Err(Unreadable::Invalid("a resource that has no name, or of whole GPUs")),
    };
    Ok(ContainerGrant { container: wire.name, kind: wire.kind, position: wire.position, gpus })
}

const OTHER_AMOUNT: Unreadable = Unreadable::Invalid("a share has memory, and shares by count have a number");

fn divided(wire: WireSlice) -> Result<(DeviceRef, Share), Unreadable> {
    match (wire.memory, wire.count) {
        (Some(memory), None) => Ok((device(&wire)?, Share { compute: wire.compute, memory })),
        _ => Err(OTHER_AMOUNT),
    }
}

/// A whole device counts with all its compute, whatever the record says.
fn whole(wire: WireSlice) -> Result<WholeDevice, Unreadable> {
    let (device, Share { memory, .. }) = divided(wire)?;
    Ok(WholeDevice { device, memory })
}

fn counted(wire: WireSlice) -> Result<CountedDevice, Unreadable> {
    match (wire.memory, wire.count) {
        (None, Some(count)) if count > 0 => {
            Ok(CountedDevice { device: device(&wire)?, count, compute: wire.compute })
        }
        _ => Err(OTHER_AMOUNT),
    }
}

fn device(wire: &WireSlice) -> Result<DeviceRef, Unreadable> {
    if wire.compute > Milli::WHOLE || wire.compute == Milli(0) || wire.gpu.as_str().is_empty() {
        return Err(Unreadable::Invalid("a share is out of range or names no GPU"));
    }
    Ok(DeviceRef { id: wire.gpu.clone(), index: wire.index })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_have_a_named_answer() {
        let one = r#"{"version":1,"node":"n","time":1,"containers":[{"name":"c","kind":"app","position":0,"whole":false,"slices":[SLICE]}]}"#;
        let slice = |s: &str| decode(&one.replace("SLICE", s));
        assert!(slice(r#"{"gpu":"g","index":0,"compute":10,"memory":256}"#).is_ok());
        for bad in [
            r#"{"gpu":"g","index":-1,"compute":10,"memory":256}"#,
            r#"{"gpu":"g","index":0,"compute":0,"memory":256}"#,
            r#"{"gpu":"g","index":0,"compute":1001,"memory":256}"#,
            r#"{"gpu":"","index":0,"compute":10,"memory":256}"#,
            r#"{"gpu":"g","index":0,"compute":10,"memory":256,"more":1}"#,
            r#"{"gpu":7,"index":0,"compute":10,"memory":256}"#,
            "",
        ] {
            assert!(slice(bad).is_err(), "{bad}");
        }
        assert_eq!(decode(r#"{"version":2,"anything":[]}"#), Err(Unreadable::Version(2)));
        assert_eq!(decode(&"x".repeat(10 << 20)), Err(Unreadable::TooLong));
        assert!(matches!(decode("x"), Err(Unreadable::Malformed(_))));
        assert!(matches!(decode(&"[".repeat(100_000)), Err(Unreadable::Malformed(_))));
    }
}
