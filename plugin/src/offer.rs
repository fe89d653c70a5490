//! What this node offers to kubelet, as data: resources, their ids, and what a container is given. Pure.

pub mod binding;
pub mod cdi;
pub mod contract;
pub mod hand_over;
pub mod order;
pub mod pool;
