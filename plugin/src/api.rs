//! Calls to the API server, and its objects as values of this crate.

pub mod client;
pub mod event;
pub mod event_queue;
pub mod node;
pub mod pod;
