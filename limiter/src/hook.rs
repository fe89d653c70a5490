//! Replacements of the driver's functions. Each hook gets the call of the driver's own function with the program's
//! arguments, and those of the arguments that it looks at.
//!
//! All of them are unsafe to call, as the driver's are: pointers must be as the driver's documentation says. Where it
//! allows null for an output, so do these.

use crate::abi::{NOT_SUPPORTED, Status};

pub mod array;
pub mod context;
pub mod graph;
pub mod info;
pub mod ipc;
pub mod launch;
pub mod linear;
pub mod nvml;
pub mod physical;
pub mod pool;
pub mod proc_address;
pub mod stream;

/// Replaces a function that cannot be limited.
pub unsafe fn unsupported(_: impl FnOnce() -> Status) -> Result<(), Status> {
    Err(NOT_SUPPORTED)
}
