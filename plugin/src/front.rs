//! The services that GPUs are requested from.
//!
//! `offers.rs` keeps each resource registered with kubelet; `device_plugin.rs` answers its calls. Where a placement
//! record names the GPUs, or kubelet is steered to them, `records.rs` finds the container that a call is for, and
//! `limits.rs` prepares what holds the container to its share. [`encode`] writes the results as kubelet's messages.

mod cdi;
mod device_plugin;
pub mod encode;
pub(crate) mod limits;
pub(crate) mod offers;
pub(crate) mod records;
pub mod vcuda_controller;
