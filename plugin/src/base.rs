//! The process and its host: what every part of the plugin needs, and what belongs to none of them.

pub mod backoff;
pub mod cgroup;
pub mod counters;
pub mod exposed;
pub mod files;
pub mod gate;
pub mod level_triggered;
pub mod mounts;
pub mod socket;
