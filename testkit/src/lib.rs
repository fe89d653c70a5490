//! Stand-ins for the parts of a cluster around kerf, for system tests, benches and the demo.
//!
//! Each speaks the real protocol over real sockets, so the programs under test run unchanged:
//!
//! * [`api::ApiServer`], an API server over HTTP: objects, versions, watches, bindings; and faults, lag and counts.
//! * [`scheduler::Scheduler`], kube-scheduler's side of the extender protocol, with its queue, its assumptions
//!   and its asynchronous binds; [`scheduler::ExtenderClient`] is its HTTP client alone.
//! * [`kubelet::Kubelet`], kubelet's side of the device plugin and pod resources protocols, with its accounting
//!   of device ids.
//!
//! [`attack::Attack`] is what strangers may send to them.
//!
//! And for the hardware below them: [`tree::Tree`] writes the files of `/sys`, `/dev` and `/proc`
//! that drivers of all vendors would show.
//!
//! Scheduler and kubelets know the API server only by its URL and talk to it as clients, like the real ones:
//!
//! ```text
//!   test --- create pod ---> ApiServer <--- list, watch, status --- Scheduler --- filter, prioritize, bind ---> extender
//!                               ^                                                                                  |
//!                               |<------------------------------- Binding -----------------------------------------+
//!                               |
//!                               +--- list, watch, status --- Kubelet --- Allocate, PreStartContainer, ... ---> plugin
//! ```
//!
//! They are stand-ins, not the real programs: the first paragraph of each module tells what it does, the next one
//! what it leaves out. No container runs. Where the real components leave an order open, a seeded
//! random order is taken; the order of parallel tasks and sockets is as open here as there.

pub mod api;
pub mod attack;
mod client;
mod clock;
pub mod kubelet;
pub mod scheduler;
pub mod tree;
pub mod usage;
