//! How much of a GPU's memory each process holds.

pub mod account;
pub mod allocations;
pub mod budget;
pub mod graph;
pub mod liveness;
pub mod mapping;
pub mod pool;
pub mod size;
