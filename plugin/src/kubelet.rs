//! kubelet's sockets.

mod directory;
pub mod pod_resources;
pub mod registration;
