//! The limiter in typical programs of tenants, on a simulated GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop at once")]

mod contexts;
mod corners;
mod evasion;
mod gpu;
mod images;
mod linkage;
mod lives;
mod memory;
mod names;
mod nvidia;
mod pacing;
mod preload;
mod processes;
mod python;
mod runtime;
mod sharing;
mod shipped;
mod support;
mod tampering;
mod timing;
