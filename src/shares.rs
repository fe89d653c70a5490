//! Counted shares: a card is offered as N equal parts of its compute, its memory is not divided, and a pod asks for a
//! number of them under a vendor's resource name (`deepomatic.com/shared-gpu: 2`). Most device plugins share cards like
//! this; with N = 1 a share is the whole card (`amd.com/gpu: 1`).
//!
//! The node's inventory has the number of shares of each card, by resource ([`PerCard`]). Configuration says which
//! resources are counted shares ([`ShareResources`]), and a pod's annotation on which cards its shares must be
//! ([`Arrangement`]).

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::Serialize;

use crate::ids::ResourceName;
use crate::units::Milli;

/// How many equal shares a card has. Each is a whole number of thousandths of the card's compute, rounded down, and
/// there must be no room for one more share: true for every number up to 31, every divisor of 1000, and some others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PerCard(NonZeroU16);

/// A card cannot be divided into this number of shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPerCard {
    #[error("a GPU has at least one share")]
    Zero,
    /// More shares than this would fit on the card.
    #[error(
        "{shares} shares of a GPU cannot be counted in thousandths of it; the next smaller number that can be is {usable}"
    )]
    Uncountable {
        shares: u32,
        /// The next smaller number that is possible.
        usable: u32,
    },
}

impl PerCard {
    /// The share is the whole card.
    pub const ONE: Self = Self(NonZeroU16::MIN);

    /// `shares` of each card.
    ///
    /// # Errors
    /// [`BadPerCard`] where not exactly this many fit, with the next smaller number that does.
    pub fn new(shares: u32) -> Result<Self, BadPerCard> {
        let whole = Milli::WHOLE.0;
        let Some(one) = whole.checked_div(shares) else { return Err(BadPerCard::Zero) };
        let usable = match whole.checked_div(one) {
            Some(fitting) if fitting == shares => shares,
            Some(_) => whole / (one + 1),
            None => whole,
        };
        match u16::try_from(usable).ok().and_then(NonZeroU16::new) {
            Some(number) if usable == shares => Ok(Self(number)),
            _ => Err(BadPerCard::Uncountable { shares, usable }),
        }
    }

    pub fn get(self) -> u32 {
        self.0.get().into()
    }

    pub fn compute(self) -> Milli {
        Milli(Milli::WHOLE.0 / self.get())
    }

    /// The compute of `count` shares, at most a whole card.
    pub fn compute_of(self, count: u32) -> Milli {
        Milli(self.compute().0.saturating_mul(count.min(self.get())))
    }

    /// How many shares this compute is, rounded down.
    pub fn within(self, compute: Milli) -> u32 {
        (compute.0 / self.compute().0).min(self.get())
    }
}

/// On which cards the counted shares of one pod must be: `<D>/gpu-shares`. For all containers of the pod together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Arrangement {
    /// A container's shares are on one card where one has room for them, otherwise on as few as possible.
    #[default]
    Any,
    SameCard,
    /// No two shares of the pod that are in use at the same time are on one card.
    DifferentCards,
}

/// Not the name of an [`Arrangement`] that a pod can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown arrangement: expected same-card or different-cards")]
pub struct UnknownArrangement;

impl FromStr for Arrangement {
    type Err = UnknownArrangement;

    fn from_str(text: &str) -> Result<Self, UnknownArrangement> {
        match text {
            "same-card" => Ok(Self::SameCard),
            "different-cards" => Ok(Self::DifferentCards),
            _ => Err(UnknownArrangement),
        }
    }
}

/// The default of `--share-resources`: the counted shares of well-known device plugins, as [`ShareResources`] reads them.
/// kerf-plugin's table of vendors says the same.
pub const SHARE_RESOURCES: &str = "deepomatic.com/shared-gpu,amd.com/gpu,amd.com/spx_*,amd.com/dpx_*,amd.com/tpx_*,\
    amd.com/qpx_*,amd.com/cpx_*,gpu.intel.com/i915,gpu.intel.com/xe,nvidia.com/gpu,nvidia.com/gpu.shared,nvidia.com/mig-*";

/// The names of resources that are counted shares. A name that ends in `*` stands for all names with that prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareResources(Vec<String>);

/// A list with a name that is not a resource's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid resource name: expected DOMAIN/NAME, optionally ending in *")]
pub struct BadShareResources(String);

impl ShareResources {
    pub fn contains(&self, resource: &str) -> bool {
        self.0.iter().any(|name| match name.strip_suffix('*') {
            Some(prefix) => resource.starts_with(prefix),
            None => resource == name,
        })
    }
}

impl FromStr for ShareResources {
    type Err = BadShareResources;

    /// Reads names joined by commas; an empty text is an empty list.
    fn from_str(text: &str) -> Result<Self, BadShareResources> {
        let legal = |part: &str, extra: &[char]| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(&c))
        };
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let read = |name: &str| {
            let (domain, own) = name.split_once('/').unwrap_or_default();
            // a * alone would take every resource of the domain, also those that are not GPUs
            let own = own.strip_suffix('*').unwrap_or(own);
            if name.len() <= 317
                && legal(domain, &['-', '.'])
                && domain.contains('.')
                && legal(own, &['-', '_', '.'])
            {
                Ok(name.to_owned())
            } else {
                Err(BadShareResources(name.chars().take(80).collect()))
            }
        };
        names.map(read).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for ShareResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub resource: ResourceName,
    /// At least one.
    pub count: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_as_many_shares_fit_as_are_announced() {
        let usable: Vec<u32> = (0..=1001).filter(|shares| PerCard::new(*shares).is_ok()).collect();
        for shares in (1..=31).chain([40, 50, 100, 125, 200, 250, 333, 500, 1000]) {
            assert!(usable.contains(&shares), "{shares}");
        }
        for shares in &usable {
            let per_card = PerCard::new(*shares).unwrap();
            assert_eq!(per_card.get(), *shares);
            assert_eq!(per_card.within(Milli::WHOLE), *shares);
            assert!((*shares + 1) * per_card.compute().0 > 1000, "{shares}");
        }
        assert_eq!(PerCard::ONE.compute(), Milli::WHOLE);
    }

    #[test]
    fn other_numbers_are_refused_with_the_next_smaller_one() {
        assert_eq!(PerCard::new(0), Err(BadPerCard::Zero));
        for shares in 1..=5000 {
            let Err(error) = PerCard::new(shares) else { continue };
            let smaller = (1..shares).rev().find(|fewer| PerCard::new(*fewer).is_ok()).unwrap();
            assert_eq!(error, BadPerCard::Uncountable { shares, usable: smaller });
        }
        assert!(PerCard::new(48).unwrap_err().to_string().ends_with("the next smaller number that can be is 47"));
        assert!(PerCard::new(u32::MAX).unwrap_err().to_string().ends_with("is 1000"));
    }

    #[test]
    fn names_are_exact_or_prefixes() {
        let names = "deepomatic.com/shared-gpu,amd.com/gpu,amd.com/cpx_*,nvidia.com/gpu,nvidia.com/mig-*";
        let known: ShareResources = names.parse().unwrap();
        for name in ["deepomatic.com/shared-gpu", "amd.com/gpu", "amd.com/cpx_nps4", "nvidia.com/mig-1g.10gb"] {
            assert!(known.contains(name), "{name}");
        }
        for name in
            ["inspur.com/vcuda-core", "nvidia.com/gpus", "amd.com/xilinx", "cpu", "gpu.intel.com/monitoring"]
        {
            assert!(!known.contains(name), "{name}");
        }
        assert_eq!(known.to_string().parse(), Ok(known));
        assert_eq!(" ,".parse(), Ok(ShareResources::default()));
        for bad in ["gpu", "*", "a.b/", "a.b/*", "a.b/c*d", "a b.c/d", "nodomain/x", "/x"] {
            assert!(bad.parse::<ShareResources>().is_err(), "{bad}");
        }
    }
}
