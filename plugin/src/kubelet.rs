//! kubelet's sockets.

mod directory;
pub mod registration;
