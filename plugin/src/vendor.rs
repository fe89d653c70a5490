//! Everything specific to a vendor, in a folder of its own, and the table of all vendors.
//!
//! What other code needs to know of a vendor is a field of [`Support`]. Layers below ([`crate::offer`]) are given
//! these facts as values; those above call `support`. To add a vendor, see "Add a vendor" in `docs/develop.md`.

pub mod amd;
pub mod args;
pub mod auto;
pub mod chosen;
pub mod deepomatic;
pub mod flags;
mod hidden;
pub mod intel;
pub mod nvidia;
mod remarks;
mod reporter;
pub mod scanner;
pub mod simulated;
pub mod support;

use crate::device::host::Vendor;
use crate::vendor::support::Support;

/// One line for each vendor.
macro_rules! table {
    ($($vendor:ident => $support:path,)*) => {
        /// In the order in which `--backend auto` tries them.
        pub const ALL: &[Vendor] = &[$(Vendor::$vendor),*];

        pub fn support(vendor: Vendor) -> &'static Support {
            match vendor {
                $(Vendor::$vendor => &$support,)*
            }
        }
    };
}

table! {
    Nvidia => nvidia::SUPPORT,
    Amd => amd::SUPPORT,
    Intel => intel::SUPPORT,
    Simulated => simulated::SUPPORT,
}

/// The vendor that a label key belongs to; `None`: no vendor.
pub fn of_label(key: &str) -> Option<Vendor> {
    labelled().find(|(_, prefixes)| prefixes.iter().any(|prefix| key.starts_with(prefix))).map(|(vendor, _)| vendor)
}

/// The vendors that have labels, with the prefixes of their keys.
pub fn labelled() -> impl Iterator<Item = (Vendor, &'static [&'static str])> {
    ALL.iter().filter_map(|vendor| Some((*vendor, support(*vendor).labels.as_ref()?.prefixes)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_extender_knows_the_resources_of_every_system_unless_told_otherwise() {
        let own = ALL.iter().flat_map(|vendor| support(*vendor).systems).flat_map(|system| system.resources);
        let known: BTreeSet<&str> = kerf::shares::SHARE_RESOURCES.split(',').collect();
        assert_eq!(own.copied().collect::<BTreeSet<_>>(), known);
    }
}
