//! All of kerf against stand-ins that speak the real protocols: does every party name the same GPU?

#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod alerts;
mod boards;
mod burst;
mod failures;
mod isolation;
mod replayed;
mod rules;
mod shares;
mod trace_run;
