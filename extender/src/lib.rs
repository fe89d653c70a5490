//! kube-scheduler's side of kerf.
//!
//! ```text
//! watch (Pods, Nodes) --> cluster (ledgers, queue, freed) <-- api (filter, prioritize, preempt, bind, predicates)
//!   |                        ^                                  |         |
//!   v                     reaper --reads--> API server <--writes-- binder    intent, in_flight
//! budgets (disruption budgets) --> api (preempt)
//! ```
//!
//! `cluster` has a ledger for each node, and in `queue` the pods that are not bound yet and where they are expected; `freed`
//! notes nodes where GPUs became free. `intent` is where a pod will most likely be bound, `in_flight` has the pods that a
//! call is writing.
//!
//! `run` starts it, `app` has its parts, `verb` lists what the scheduler may call, `bodies` bounds the memory of calls, and
//! `lease` knows whether the scheduler beside it is the one in use, and `beside` whether it is alive. [`cluster`] owns every lock. Filter
//! and prioritize read it; bind reserves in it, releases the lock and then does one write. What the watches say wins
//! over what was assumed. `planning` runs long work in threads of its own, `retries` makes kube-scheduler try
//! refused pods (`refused`) again once they fit, and `decisions` says why a pod got its GPUs.

mod api;
mod app;
mod beside;
mod binder;
mod bodies;
mod budgets;
pub mod clock;
pub mod cluster;
pub mod config;
mod debug;
mod decisions;
mod freed;
mod in_flight;
mod intent;
mod lease;
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
pub use run::{Extender, Listening, start};
