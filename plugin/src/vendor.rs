//! Everything that is known of each vendor, in a folder of its own.

pub mod amd;
pub mod auto;
pub mod deepomatic;
pub mod flags;
pub mod intel;
pub mod nvidia;
pub mod reporter;
pub mod simulated;
