//! `<D>/gpu-inventory` on a Node: the cards as the plugin found them.
//!
//! ```
//! # use kerf::annotation::inventory::{decode, encode};
//! let text = r#"{"version":1,"gpus":[{"uuid":"GPU-5c0d","index":0,"model":"NVIDIA H200",
//!     "memory_mib":143771,"numa":0,"health":"healthy","isolation":"limiter",
//!     "links":{"1":"NV18"}}]}"#;
//! let inventory = decode(text).unwrap();
//! assert_eq!(decode(&encode(&inventory)).unwrap(), inventory);
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Unreadable, bounded, malformed};
use crate::device::{Device, Health, Inventory};
use crate::ids::DeviceId;
use crate::isolation::Isolation;
use crate::units::Mib;

const VERSION: u64 = 1;
/// More cards than any machine has.
const MAX_GPUS: usize = 512;

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u64,
    gpus: Vec<WireGpu>,
}

#[derive(Serialize, Deserialize)]
struct WireGpu {
    uuid: DeviceId,
    index: u32,
    model: Arc<str>,
    memory_mib: Mib,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    numa: Option<u32>,
    health: WireHealth,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isolation: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    links: BTreeMap<u32, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireHealth {
    Healthy,
    Unhealthy,
}

/// The annotation's value. Cordons are an administrator's word and are not in it.
pub fn encode(inventory: &Inventory) -> String {
    let gpus = inventory
        .devices()
        .iter()
        .map(|device| WireGpu {
            uuid: device.id.clone(),
            index: device.index,
            model: device.model.clone(),
            memory_mib: device.memory,
            numa: device.numa,
            health: match device.health {
                Health::Healthy => WireHealth::Healthy,
                Health::Unhealthy => WireHealth::Unhealthy,
            },
            isolation: (device.isolation != Isolation::None).then(|| device.isolation.to_string()),
            links: device.links.iter().map(|(peer, link)| (*peer, link.to_string())).collect(),
        })
        .collect();
    // strings and integers only: there is nothing in it that JSON cannot hold
    serde_json::to_string(&Wire { version: VERSION, gpus }).unwrap_or_default()
}

/// Reads the annotation's value. A link of an unknown kind is left out, a level of isolation that is unknown is none;
/// all else must be right.
///
/// # Errors
/// [`Unreadable`]; a node whose inventory cannot be read takes no pod.
pub fn decode(text: &str) -> Result<Inventory, Unreadable> {
    let wire: Wire = serde_json::from_str(bounded(text)?).map_err(|e| malformed(&e))?;
    if wire.version != VERSION {
        return Err(Unreadable::Version(wire.version));
    }
    if wire.gpus.len() > MAX_GPUS {
        return Err(Unreadable::Invalid("more cards than any machine has"));
    }
    let count = wire.gpus.len();
    let devices = wire
        .gpus
        .into_iter()
        .map(|gpu| Device {
            id: gpu.uuid,
            index: gpu.index,
            model: gpu.model,
            memory: gpu.memory_mib,
            numa: gpu.numa,
            health: match gpu.health {
                WireHealth::Healthy => Health::Healthy,
                WireHealth::Unhealthy => Health::Unhealthy,
            },
            cordoned: false,
            // one that is unknown here promises nothing
            isolation: gpu.isolation.and_then(|word| word.parse().ok()).unwrap_or_default(),
            links: gpu.links.into_iter().filter_map(|(peer, link)| Some((peer, link.parse().ok()?))).collect(),
        })
        .collect();
    let inventory = Inventory::new(devices);
    if inventory.devices().len() != count || inventory.devices().iter().any(|d| d.id.as_str().is_empty()) {
        return Err(Unreadable::Invalid("a card without uuid, or two with the same"));
    }
    Ok(inventory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_inventory_is_refused_whole() {
        let gpu = r#"{"uuid":"g","index":0,"model":"","memory_mib":1,"health":"healthy"}"#;
        let of = |gpus: &str| decode(&format!(r#"{{"version":1,"gpus":[{gpus}]}}"#));
        assert_eq!(of("").unwrap(), Inventory::default());
        assert_eq!(of(gpu).unwrap().devices().len(), 1);
        assert!(of(&format!("{gpu},{gpu}")).is_err());
        assert!(of(&gpu.replace("healthy", "fine")).is_err());
        assert!(of(&gpu.replace(":1,", ":-1,")).is_err());
        assert_eq!(decode(r#"{"version":9,"gpus":[]}"#), Err(Unreadable::Version(9)));
    }
}
