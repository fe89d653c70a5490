//! Reading of bounded lists: a body of empty items takes many times its length in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// More than any cluster has nodes.
pub(super) const MAX_NODES: usize = 100_000;
/// More than any node has pods.
pub(super) const MAX_PODS: usize = 10_000;
/// More pods than one preemption ever has as victims.
pub(super) const MAX_VICTIMS: usize = 500_000;
/// Reads a list of at most `MAX` items; `null`, Go's empty list, gives `None`.
pub(super) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(Items::<T, MAX>(PhantomData))
}

/// Reads a map by node without parsing its values; `null` gives `None`.
pub(super) fn by_node<'de: 'a, 'a, D>(deserializer: D) -> Result<Option<BTreeMap<String, &'a RawValue>>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Entries(PhantomData))
}

fn too_many<E: Error>(what: &str, most: usize) -> E {
    E::custom(format_args!("more than {most} {what}"))
}

struct Items<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == MAX {
                return Err(too_many("items in a list", MAX));
            }
            list.push(item);
        }
        Ok(Some(list))
    }
}

struct Entries<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for Entries<'a> {
    type Value = Option<BTreeMap<String, &'a RawValue>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a map by node")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut nodes = BTreeMap::new();
        while let Some((node, value)) = entries.next_entry::<String, &'de RawValue>()? {
            if nodes.len() == MAX_NODES {
                return Err(too_many("nodes", MAX_NODES));
            }
            nodes.insert(node, value);
        }
        Ok(Some(nodes))
    }
}
