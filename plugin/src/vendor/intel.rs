//! Intel GPUs.

pub mod contract;
pub mod labels;
pub mod scan;
pub mod wsl;
