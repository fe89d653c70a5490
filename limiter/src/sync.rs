//! What the account and the pools use to wait for other threads and processes. The model check of `limiter/interleavings`
//! compiles them with its own of these.

pub use std::sync::{Mutex, MutexGuard};
pub use std::{hint, thread};
