//! Who asks for GPUs, and is answered.

pub mod placed;
pub mod profile;
pub mod vcuda;
pub mod vcuda_controller;
