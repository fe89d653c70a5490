//! kerf on real Kubernetes, on one machine: etcd, API server, controller manager, scheduler, and nodes of kubelet,
//! containerd and runc with real containers. Only the GPUs are simulated.
//!
//! ```text
//! cluster --> control (etcd, API server, controllers, scheduler)      tools, image, certificates: what they need
//!        \--> node (containerd, kubelet, plugin, cards), by holder    process, identity: what runs, and proof of it
//!        |        devices: its /dev; paper: other vendors' cards      place, cleaning, address: nothing stays behind
//!        \--> bundled (kerf's pods), or extender as a process           network: addresses
//! bare --> control, extender: Nodes that are objects only, for benchmarks
//! failover: faults of the leading scheduler                          kustomization: of manifests/
//! audit, books: whether all parties agree                           release: what depends on the version of Kubernetes
//! ```
//!
//! All files of a cluster are in its run directory ([`place`]); everything outside is recorded there, and the next
//! run removes what a crashed run has left.

pub mod address;
pub mod audit;
pub mod bare;
pub mod books;
pub mod bundled;
pub mod cards;
pub mod certificates;
pub mod cleaning;
pub mod cluster;
pub mod containerd;
pub mod control;
pub mod devices;
pub mod failover;
pub mod holder;
pub mod identity;
pub mod image;
pub mod kustomization;
pub mod network;
pub mod node;
mod own_scheduler;
pub mod paper;
pub mod place;
pub mod ports;
pub mod process;
pub mod programs;
pub mod release;
pub mod samples;
pub mod tools;
pub mod wait;
