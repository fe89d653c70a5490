//! The extender over HTTP, against a stand-in API server that speaks the real protocol.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod attack;
mod beside;
mod bind;
mod callers;
mod certificates;
mod decisions;
mod expected;
mod failing;
mod fixture;
mod groups;
mod hostile;
mod late;
mod lease;
mod legacy;
mod lost;
mod news;
mod own;
mod pending;
mod ports;
mod preempt;
mod races;
mod replay;
mod restart;
mod retries;
mod running;
mod scenarios;
mod schedules;
mod shares;
mod simulate;
mod usage;
mod verbs;
mod version;
mod wire;
