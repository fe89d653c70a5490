//! How a container is held to its share: the strongest kind of isolation that this node has for the
//! card ([`enforcers`]). Loops that keep it up are in [`crate::follow::limits`].
//!
//! | kind | module | what it enforces |
//! | --- | --- | --- |
//! | `mig` | [`crate::vendor::nvidia::mig`] | a hardware partition, listed as a card of its own; for whole ones |
//! | `driver` | [`driver`] | memory, by the driver, on the container's control group |
//! | `mps` | [`mps`] | memory of each process and compute, by NVIDIA's multi-process service |
//! | `limiter` | [`limiter`] | memory and compute, by a library in the container |
//! | `none` | | nothing |
//!
//! The limiter stands below `driver` and `mps` as well, where it is there: the driver paces no compute, and a process
//! that goes around the service has no other limit. What a container got is written beside its limits ([`folder`]), so
//! that a later life of this process knows it.

pub mod demand;
pub mod driver;
pub mod enforcers;
pub mod folder;
pub mod limiter;
pub mod mps;
