//! Calls to the API server, and its objects as values of this crate.

mod client;
mod event;
mod event_queue;
mod node;
pub mod pod;
mod pod_events;

pub use client::{Cluster, ClusterError, Condition};
pub use event::{About, EventText, OTHER_DOMAIN};
pub use event_queue::EventQueue;
pub use node::{Changes, NodeShown};
pub use pod_events::PodEvents;
