//! The whole of kerf against stand-ins that speak the real protocols: does every party name the same card?

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod audit;
mod burst;
mod failures;
mod isolation;
#[cfg(feature = "cli")]
mod replayed;
mod shares;
mod stack;
mod trace;
mod trace_run;
mod workload;
