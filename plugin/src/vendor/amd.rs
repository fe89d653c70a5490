//! AMD GPUs.

pub mod contract;
pub mod labels;
pub mod scan;
mod topology;
