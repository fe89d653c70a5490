//! A Node that may not exist, of which only what says which cards it has is read: whoever sends it may have put any amount of
//! anything else into it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::api::core::v1::{Node, NodeStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kerf::annotation::Keys;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::node_name::Name;

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow, default)]
    status: Option<Status<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    annotations: Option<&'a RawValue>,
    #[serde(rename = "deletionTimestamp", default)]
    deleted: Option<Time>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    capacity: Option<&'a RawValue>,
}

/// The annotations and capacity of a node that [`kerf::k8s::imagined`] looks at; everything else is skipped, and takes no
/// memory.
///
/// # Errors
/// Where what is read is not as the API has it.
pub fn node(text: &RawValue, keys: &Keys) -> serde_json::Result<Node> {
    let Object { metadata, status } = serde_json::from_str(text.get())?;
    let metadata = metadata.map(|metadata| {
        Ok::<_, serde_json::Error>(ObjectMeta {
            annotations: pick(metadata.annotations, &[&keys.inventory, &keys.cordon])?,
            deletion_timestamp: metadata.deleted,
            ..ObjectMeta::default()
        })
    });
    let status = status.map(|status| {
        let capacity = pick::<Quantity>(status.capacity, &[&keys.core, &keys.memory])?;
        Ok::<_, serde_json::Error>(NodeStatus { capacity, ..NodeStatus::default() })
    });
    Ok(Node { metadata: metadata.transpose()?.unwrap_or_default(), status: status.transpose()?, ..Node::default() })
}

/// The entries of a map with these keys.
fn pick<'de, T: Deserialize<'de>>(
    map: Option<&'de RawValue>,
    keys: &[&str],
) -> serde_json::Result<Option<BTreeMap<String, T>>> {
    let picks = Pick { keys, of: PhantomData };
    map.map(|map| serde_json::Deserializer::from_str(map.get()).deserialize_map(picks)).transpose()
}

struct Pick<'k, T> {
    keys: &'k [&'k str],
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Pick<'_, T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut picked = BTreeMap::new();
        while let Some(key) = entries.next_key::<Name<'de>>()? {
            if self.keys.contains(&key.0.as_ref()) {
                picked.insert(key.0.into_owned(), entries.next_value()?);
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(picked)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_says_which_cards_a_node_has_is_read_and_nothing_else() {
        let keys = Keys::default();
        let text = |value| serde_json::value::to_raw_value(&value).unwrap();
        let whole = text(json!({
            "metadata": {
                "name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z", "managedFields": [{ "fieldsV1": [[{}, 1]] }],
                "annotations": { &keys.inventory: "i", &keys.cordon: "c", "other": {} },
            },
            "spec": 7,
            "status": { "images": [{}], "capacity": { &keys.core: "100", &keys.memory: "4", "cpu": [] } },
        }));
        let read = node(&whole, &keys).unwrap();
        assert!(read.metadata.deletion_timestamp.is_some() && read.metadata.managed_fields.is_none());
        let annotations = read.metadata.annotations.unwrap();
        assert_eq!((annotations.len(), annotations[&keys.inventory].as_str()), (2, "i"));
        let capacity = read.status.unwrap().capacity.unwrap();
        assert_eq!((capacity.len(), capacity[&keys.core].0.as_str()), (2, "100"));
        for empty in
            [json!({}), json!({ "metadata": null, "status": null }), json!({ "metadata": { "annotations": null } })]
        {
            assert!(node(&text(empty), &keys).unwrap().metadata.annotations.is_none());
        }
        for wrong in [
            json!({ "metadata": { "deletionTimestamp": "x" } }),
            json!({ "status": { "capacity": [] } }),
            json!({ "metadata": { "annotations": { &keys.cordon: 7 } } }),
        ] {
            assert!(node(&text(wrong.clone()), &keys).is_err(), "{wrong}");
        }
    }
}
