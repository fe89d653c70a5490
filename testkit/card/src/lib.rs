//! A stand-in for a GPU, shared by processes through files, as the stand-ins for the driver's libraries use it.
//!
//! * [`card::Card`]: memory of a given size, and kernels that take time. Kernels of one process run one after the
//!   other; while several processes have kernels, the GPU gives each the same part of its time, as a real one does that
//!   switches between them.
//! * [`clock::Clock`]: time that stands still while any participant works, and jumps to the next awaited moment when
//!   all wait. Ten seconds on a GPU pass in moments, and the same way on every machine.
//!
//! This crate does not know about limits.

pub mod card;
pub mod clock;
mod shared;
