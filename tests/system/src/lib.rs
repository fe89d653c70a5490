//! All of kerf against stand-ins that speak the real protocols, for its tests and for the demo.

#![allow(clippy::expect_used, clippy::panic, reason = "for tests")]

pub mod audit;
pub mod prometheus;
pub mod records;
pub mod rules;
pub mod stack;
pub mod trace;
pub mod workload;
