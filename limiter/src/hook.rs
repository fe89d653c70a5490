//! One function for each of the driver's that the limiter stands in for; each is given the driver's own first.
//!
//! All of them are unsafe to call as the driver's are: pointers must be what the driver's documentation says. Where it
//! allows null for an output, so do these.

#![allow(missing_docs, clippy::missing_safety_doc, reason = "each is the driver's function that the table names")]

/// The type of a driver's function.
macro_rules! real {
    ($($type:ty),* $(,)?) => { unsafe fn($($type),*) -> $crate::abi::Status };
}

/// Common to all hooks: the driver's function and the program's arguments, which are what the driver's documentation says.
macro_rules! driver {
    ($call:expr) => {
        // SAFETY: the program's own arguments, and the driver's own function.
        unsafe { $call }
    };
}

pub mod array;
pub mod capture;
pub mod context;
pub mod entry;
pub mod graph;
pub mod info;
pub mod launch;
pub mod linear;
pub mod nvml;
pub mod physical;
pub mod pool;
