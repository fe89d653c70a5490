//! The extender over HTTP, against a stand-in API server that speaks the real protocol.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod bind;
mod callers;
mod fixture;
mod hostile;
mod legacy;
mod preempt;
mod races;
mod replay;
mod restart;
mod running;
mod scenarios;
mod shares;
mod verbs;
mod wire;
