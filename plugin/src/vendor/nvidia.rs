//! NVIDIA GPUs.

pub mod contract;
mod events;
pub mod facts;
pub mod files;
pub mod health;
mod instances;
pub mod labels;
pub mod mig;
pub mod nvml;
