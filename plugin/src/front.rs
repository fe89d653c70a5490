//! Who asks for GPUs, and is answered.
//!
//! `offers.rs` keeps each resource registered with kubelet; `device_plugin.rs` answers its calls. Where a placement record
//! names the GPUs, or kubelet is steered to them, `records.rs` says whose call it is, and `limits.rs` prepares what holds
//! the container. [`encode`] writes what was decided in kubelet's form.

mod device_plugin;
pub mod encode;
pub(crate) mod limits;
pub(crate) mod offers;
pub(crate) mod records;
pub mod vcuda_controller;
