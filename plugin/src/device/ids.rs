//! The ids that kubelet hands out.
//!
//! An id names its GPU, so what kubelet writes about a container tells which GPU it was meant to have. The ids of
//! `vcuda` and of pods that the extender places are `<uuid>::<k>`, the form that DCGM's exporter understands, where
//! `k` counts from zero on each GPU. With NVIDIA's UUID of 40 characters an id has at most 46, below kubelet's
//! documented bound of 63.

use std::collections::BTreeMap;
use std::sync::Arc;

use kerf::annotation::Keys;
use kerf::ids::ResourceName;

use crate::device::label::counted;
use crate::device::roots;

/// How ids are spelled: `<base>`, or `<base><separator><number>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdStyle {
    /// The beginning of an id.
    pub base: Base,
    /// The separator, and the number of a GPU's first share. `None`: there is one id for each GPU.
    pub numbers: Option<(&'static str, u32)>,
}

/// What names a GPU in its ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// UUID or PCI address.
    Id,
    /// The kernel's name.
    Name,
}

impl IdStyle {
    /// `<id>::<k>`
    pub const COLONS: Self = Self { base: Base::Id, numbers: Some(("::", 0)) };

    /// `<id>` of a GPU that is not shared, and `<id>::<k>` of one that is.
    pub const fn shared_by(replicas: u32) -> Self {
        if replicas == 1 { Self { numbers: None, ..Self::COLONS } } else { Self::COLONS }
    }

    /// The beginning of the ids of a GPU with this id and name.
    pub fn base<'a>(&self, id: &'a str, name: &'a str) -> &'a str {
        match self.base {
            Base::Id => id,
            Base::Name => name,
        }
    }

    /// The id of a share, counted from zero.
    pub fn id(&self, base: &str, share: u32) -> String {
        match self.numbers {
            None => base.to_owned(),
            Some((separator, first)) => format!("{base}{separator}{}", first.saturating_add(share)),
        }
    }

    /// The base and the share that an id names; `None` where it does not have this form.
    pub fn read<'a>(&self, id: &'a str) -> Option<(&'a str, u32)> {
        let Some((separator, first)) = self.numbers else { return Some((id, 0)) };
        let (base, number) = id.rsplit_once(separator)?;
        let share = roots::suffix(number, "")?.checked_sub(first)?;
        (!base.is_empty()).then_some((base, share))
    }
}

/// A resource whose ids pods of this node hold by their records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `<D>/vcuda-core`; its Allocate carries the answer for the container.
    Core,
    /// `<D>/vcuda-memory`; its Allocate is only noted, and its answer is empty.
    Memory,
    /// Shares by count of a profile whose pods the extender places; its Allocate is answered by the profile.
    Counted(ResourceName),
}

impl Resource {
    pub const VCUDA: [Self; 2] = [Self::Core, Self::Memory];

    /// The name in file names, metrics and logs.
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

/// The id of unit `k` of a GPU, where pods hold it by their records.
pub fn unit(gpu: &str, k: u32) -> String {
    IdStyle::COLONS.id(gpu, k)
}

/// The GPU that such an id names; `None` where the id does not have this form.
pub fn card(id: &str) -> Option<&str> {
    IdStyle::COLONS.read(id).map(|(gpu, _)| gpu)
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

    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The GPUs that are named, with how many ids each.
    pub fn cards(&self) -> BTreeMap<&str, u64> {
        counted(self.0.iter().filter_map(|id| card(id)))
    }

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
    fn what_is_spelled_is_read() {
        let styles = [
            (IdStyle::shared_by(1), "GPU-a"),
            (IdStyle::shared_by(2), "GPU-a::4"),
            (IdStyle { base: Base::Name, numbers: Some(("-_-", 1)) }, "nvidia0-_-5"),
        ];
        for (style, wanted) in styles {
            let base = style.base("GPU-a", "nvidia0");
            let id = style.id(base, 4);
            assert_eq!(id, wanted);
            assert_eq!(style.read(&id), Some((base, if style.numbers.is_none() { 0 } else { 4 })));
        }
        let (style, _) = styles[2];
        assert_eq!((style.read("nvidia0-_-0"), style.read("nvidia0")), (None, None));
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
