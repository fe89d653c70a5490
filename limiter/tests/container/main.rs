//! The limiter in typical programs of tenants, on a simulated GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop at once")]

mod gpu;
mod images;
mod linkage;
mod memory;
mod nvidia;
mod pacing;
mod preload;
mod processes;
mod shipped;
mod support;
mod tampering;
mod timing;
