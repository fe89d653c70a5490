//! The process around a daemon: logs, shutdown, readiness, the administrative HTTP routes and the connection to the API
//! server. It has no GPU code, so that both daemons behave alike for an operator.

pub mod about;
pub mod admin;
pub mod client;
pub mod ending;
pub mod failure;
pub mod feed;
pub mod guarded;
pub mod lease_name;
pub mod readiness;
pub mod series;
pub mod serving;
pub mod shutdown;
pub mod telemetry;
pub mod version;
pub mod watching;
