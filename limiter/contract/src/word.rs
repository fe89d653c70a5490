//! What the shared file consists of. The model check of `limiter/interleavings` compiles [`crate::state`] with its own of
//! these, and with smaller [`crate::size`]s.

pub use std::sync::atomic::{AtomicU32, AtomicU64};
