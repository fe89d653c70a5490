//! kube-scheduler's side of kerf.
//!
//! ```text
//! watch (Pods, Nodes) --> cluster (a ledger for each node) <-- api (filter, prioritize, bind, predicates)
//!                            ^                                  |            |
//!                         reaper --reads--> API server <--writes-- binder    intent (pods in flight)
//! ```
//!
//! `run` starts it, `app` has its parts, `verb` lists what the scheduler may call. [`cluster`] owns every lock. Filter
//! and prioritize read it; bind reserves in it, releases the lock and then does one write. What the watches say wins
//! over what was assumed. `planning` runs long work in threads of its own, `retries` makes kube-scheduler try refused
//! pods again that fit now (`refused`), and `decisions` says why a pod got its GPUs.

mod api;
mod app;
mod binder;
mod budgets;
pub mod clock;
pub mod cluster;
pub mod config;
mod debug;
mod decisions;
mod freed;
mod in_flight;
mod intent;
pub mod metrics;
mod planning;
mod queue;
mod reaper;
mod refused;
mod retries;
mod run;
pub mod verb;
mod watch;

pub use binder::WAKER;
pub use run::{Extender, start};
