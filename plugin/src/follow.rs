//! Loops that keep the state true to the host and to the API server.

pub mod access;
pub mod devices;
pub mod guarded;
pub mod held;
pub mod in_time;
pub mod limits;
pub mod overheads;
pub mod pacing;
pub mod pods;
mod said;
pub mod watchdog;
