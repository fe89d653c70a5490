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
//!
//! For a card that is offered as counted shares, `offers` has their number for each resource:
//! `"offers":{"deepomatic.com/shared-gpu":100}`. Fields that a reader does not know are ignored.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::unreadable::{Unreadable, bounded, malformed};
use crate::device::{Device, Health, Inventory, MAX_CARDS};
use crate::ids::{DeviceId, ResourceName};
use crate::isolation::Isolation;
use crate::shares::PerCard;
use crate::units::Mib;

const VERSION: u64 = 1;
/// The most resources that one card may be offered as.
const MAX_OFFERS: usize = 16;

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
    health: Health,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isolation: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    links: BTreeMap<u32, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    offers: BTreeMap<ResourceName, u32>,
}

/// The annotation's value. Cordons are not in it: an administrator sets them elsewhere.
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
            health: device.health,
            isolation: (device.isolation != Isolation::None).then(|| device.isolation.to_string()),
            links: device.links.iter().map(|(peer, link)| (*peer, link.to_string())).collect(),
            offers: device.offers.iter().map(|(name, shares)| (name.clone(), shares.get())).collect(),
        })
        .collect();
    // strings and integers only: JSON can hold all of it
    serde_json::to_string(&Wire { version: VERSION, gpus }).unwrap_or_default()
}

/// Reads the annotation's value. A link of an unknown kind is left out, and an unknown level of isolation counts as
/// none; everything else must be valid.
///
/// # Errors
/// [`Unreadable`]; a node whose inventory cannot be read takes no pod.
pub fn decode(text: &str) -> Result<Inventory, Unreadable> {
    let wire: Wire = serde_json::from_str(bounded(text)?).map_err(|e| malformed(&e))?;
    if wire.version != VERSION {
        return Err(Unreadable::Version(wire.version));
    }
    if wire.gpus.len() > MAX_CARDS {
        return Err(Unreadable::TooManyCards);
    }
    let count = wire.gpus.len();
    let devices = wire.gpus.into_iter().map(device).collect::<Result<Vec<_>, _>>()?;
    let inventory = Inventory::new(devices);
    if inventory.devices().len() != count || inventory.devices().iter().any(|d| d.id.as_str().is_empty()) {
        return Err(Unreadable::Invalid("a GPU without uuid, or two with the same"));
    }
    Ok(inventory)
}

fn device(gpu: WireGpu) -> Result<Device, Unreadable> {
    if gpu.offers.len() > MAX_OFFERS || gpu.offers.keys().any(|name| name.as_str().is_empty()) {
        return Err(Unreadable::Invalid("a GPU that is offered by too many names, or by none"));
    }
    let offer = |(name, shares)| Ok((name, PerCard::new(shares).map_err(Unreadable::Shares)?));
    Ok(Device {
        id: gpu.uuid,
        index: gpu.index,
        model: gpu.model,
        memory: gpu.memory_mib,
        numa: gpu.numa,
        health: gpu.health,
        cordoned: false,
        // an unknown level promises nothing
        isolation: gpu.isolation.and_then(|word| word.parse().ok()).unwrap_or_default(),
        links: gpu.links.into_iter().filter_map(|(peer, link)| Some((peer, link.parse().ok()?))).collect(),
        offers: gpu.offers.into_iter().map(offer).collect::<Result<_, _>>()?,
    })
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
        let offers = |offers: &str| of(&gpu.replace("}", &format!(r#","offers":{{{offers}}}}}"#)));
        let offered = offers(r#""a.b/c":100,"a.b/d":1"#).unwrap();
        assert_eq!(offered.devices()[0].offers.values().map(|n| n.get()).collect::<Vec<_>>(), [100, 1]);
        for bad in [r#""a.b/c":0"#, r#""a.b/c":48"#, r#""a.b/c":-1"#, r#""":1"#] {
            assert!(offers(bad).is_err(), "{bad}");
        }
        let many: Vec<String> = (0..17).map(|number| format!(r#""a.b/{number}":1"#)).collect();
        assert!(offers(&many.join(",")).is_err());
        assert_eq!(decode(r#"{"version":9,"gpus":[]}"#), Err(Unreadable::Version(9)));
    }

    #[test]
    fn a_node_has_64_cards_at_most() {
        let of = |count: u32| {
            let devices = (0..count).map(|index| Device::new(format!("g{index}"), index, Mib(1)));
            decode(&encode(&Inventory::new(devices.collect()))).map(|inventory| inventory.devices().len())
        };
        assert_eq!(of(64), Ok(64));
        assert_eq!(of(65), Err(Unreadable::TooManyCards));
    }
}
