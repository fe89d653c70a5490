//! GPUs of all vendors, from fixture trees: what the backends find, what they leave out, and what damage does.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

mod damage;
mod discovery;
mod doctor;
mod forest;
mod health;
mod intel;
mod kubelet;
mod labelling;
mod labels;
mod left_out;
mod offers;
mod order;
mod placed;
mod recut;
mod usage;
mod wsl;
