//! The plugin against kubelet's and the API server's protocols: registration, allocation, health, and failures.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

mod access;
mod allocation;
mod choice;
mod domain;
mod durable;
mod evasion;
mod events;
mod failing;
mod hanging;
mod isolation;
mod lifecycle;
mod limits;
mod mps;
mod own_node;
mod ports;
mod prune;
mod recut;
mod report;
mod running;
mod stage;
mod startup_taint;
mod strangers;
mod tenant;
mod tkestack;
mod unreadable;
