//! The process and its host: what every part of the plugin needs and none of them owns.

pub mod cgroup;
pub mod gate;
