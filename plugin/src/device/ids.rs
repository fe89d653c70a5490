//! The ids that kubelet hands out: `<uuid>::<k>`, for both resources.
//!
//! `k` counts from zero on each card: 0..=99 for `vcuda-core`, one for every whole 256 MiB of the card for
//! `vcuda-memory`. An id names its card, so what kubelet writes about a container tells which card it was
//! meant to have; `::` is the form that DCGM's exporter understands. With NVIDIA's UUID of 40 characters an id
//! has at most 46, below kubelet's documented bound of 63.

use std::collections::BTreeMap;
use std::sync::Arc;

use kerf::annotation::Keys;
use kerf::ids::ResourceName;

/// Ids of `vcuda-core` on each card: one for each percent.
pub const CORE_IDS_PER_CARD: u32 = 100;

const SEPARATOR: &str = "::";

/// A resource whose ids pods of this node hold by their records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `<D>/vcuda-core`; its Allocate carries the answer for the container.
    Core,
    /// `<D>/vcuda-memory`; its Allocate is bookkeeping and answers nothing.
    Memory,
    /// Shares by count of a profile whose pods the extender places; its Allocate is answered by the profile.
    Counted(ResourceName),
}

impl Resource {
    /// Both of `vcuda`, in the order in which they are registered.
    pub const VCUDA: [Self; 2] = [Self::Core, Self::Memory];

    /// The word used in file names, metrics and logs.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Core => "core",
            Self::Memory => "memory",
            Self::Counted(name) => name.as_str(),
        }
    }

    /// The extended resource's full name.
    pub fn name<'a>(&'a self, keys: &'a Keys) -> &'a str {
        match self {
            Self::Core => &keys.core,
            Self::Memory => &keys.memory,
            Self::Counted(name) => name.as_str(),
        }
    }
}

/// The id of unit `k` of the card `uuid`.
pub fn unit(uuid: &str, k: u32) -> String {
    format!("{uuid}{SEPARATOR}{k}")
}

/// The card that an id names; `None` where it is not of our making.
pub fn card(id: &str) -> Option<&str> {
    let (uuid, k) = id.rsplit_once(SEPARATOR)?;
    (!uuid.is_empty() && k.parse::<u32>().is_ok()).then_some(uuid)
}

/// A set of ids as kubelet gave it, sorted and distinct.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ids(Arc<[String]>);

impl Ids {
    /// Sorts and removes duplicates.
    pub fn new(ids: impl IntoIterator<Item = String>) -> Self {
        let mut ids: Vec<String> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids.into())
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The cards that are named, with how many ids each.
    pub fn cards(&self) -> BTreeMap<&str, u64> {
        let mut cards = BTreeMap::new();
        for name in self.0.iter().filter_map(|id| card(id)) {
            *cards.entry(name).or_default() += 1;
        }
        cards
    }

    /// Whether an id is in both sets.
    pub fn intersects(&self, other: &Self) -> bool {
        self.0.iter().any(|id| other.0.binary_search(id).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_card_and_stays_within_kubelets_bound() {
        let uuid = "GPU-5c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e5f";
        let id = unit(uuid, 4095);
        assert_eq!(card(&id), Some(uuid));
        assert!(id.len() <= 63);
        for bad in ["", "x", "::1", "a::b", "a::-1", "a::1::"] {
            assert_eq!(card(bad), None, "{bad}");
        }
    }

    #[test]
    fn sets_are_equal_whatever_their_order() {
        let a = Ids::new(["b::1".to_owned(), "a::0".to_owned(), "b::1".to_owned()]);
        let b = Ids::new(["a::0".to_owned(), "b::1".to_owned()]);
        assert_eq!(a, b);
        assert_eq!(a.len(), 2);
        assert!(a.intersects(&Ids::new(["a::0".to_owned()])));
        assert!(!a.intersects(&Ids::new(["a::1".to_owned()])));
        assert_eq!(a.cards(), BTreeMap::from([("a", 1), ("b", 1)]));
    }
}
