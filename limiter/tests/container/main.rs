//! The limiter in programs as tenants write them, on a simulated card.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop at once")]

mod memory;
mod nvidia;
mod pacing;
mod processes;
mod support;
mod tampering;
