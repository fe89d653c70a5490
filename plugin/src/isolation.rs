//! How a container is held to its share: by the strongest kind of isolation that this node has for the GPU
//! ([`enforcers`]). The loops that maintain it are in [`crate::follow::limits`].
//!
//! | kind | module | what it enforces |
//! | --- | --- | --- |
//! | `mig` | [`crate::vendor::nvidia::mig`] | a hardware partition, listed as a GPU of its own; for whole ones |
//! | `driver` | [`driver`] | memory, by the driver, on the container's control group |
//! | `mps` | [`mps`] | memory of each process and compute, by NVIDIA's multi-process service |
//! | `limiter` | [`limiter`] | memory and compute, by a library in the container |
//! | `none` | | nothing |
//!
//! Under `driver` and `mps` the limiter is used as well, where the node has it: the driver does not limit compute,
//! and a process that bypasses the service has no other limit. A container's isolation is written beside its limits
//! ([`folder`]), so that the plugin knows it after a restart.

pub mod demand;
pub mod driver;
pub mod enforcers;
pub mod folder;
pub mod in_place;
pub mod limiter;
pub mod mps;
pub mod usable;
