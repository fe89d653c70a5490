//! Everything that is known of each vendor, in a folder of its own, and the table of all of them.
//!
//! What is asked of a vendor elsewhere is a field of [`Support`]. Layers below ([`crate::offer`]) are given the answers as
//! values; those above ask [`support`]. The way to a new vendor: "Add a vendor" in `docs/develop.md`.

pub mod amd;
pub mod args;
pub mod auto;
pub mod deepomatic;
pub mod flags;
pub mod intel;
pub mod nvidia;
mod reporter;
pub mod simulated;
pub mod support;

use crate::device::origin::Vendor;
use crate::vendor::support::Support;

/// One line for each vendor.
macro_rules! table {
    ($($vendor:ident => $support:path,)*) => {
        /// All vendors, in the order in which `--backend auto` tries them.
        pub const ALL: &[Vendor] = &[$(Vendor::$vendor),*];

        /// What is known of a vendor.
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

/// Whose label a key is, if it is any vendor's.
pub fn of_label(key: &str) -> Option<Vendor> {
    labelled().find(|(_, prefixes)| prefixes.iter().any(|prefix| key.starts_with(prefix))).map(|(vendor, _)| vendor)
}

/// The vendors that have labels, with what the keys start with.
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
        let known: BTreeSet<&str> = kerf_runtime::flags::SHARE_RESOURCES.split(',').collect();
        assert_eq!(own.copied().collect::<BTreeSet<_>>(), known);
    }
}
