//! How much of a GPU's memory each process holds.

pub mod account;
pub mod allocations;
#[cfg(test)]
pub mod blank;
pub mod budget;
pub mod graph;
pub mod liveness;
pub mod locks;
pub mod mapping;
pub mod pages;
pub mod pool;
pub mod shared;
pub mod sharing;
pub mod size;
pub mod sum;
