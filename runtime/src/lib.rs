//! The process around a program: logs, shutdown, readiness, the administrative HTTP routes and the
//! way to the API server. Knows nothing
//! of GPUs, so that both daemons behave alike towards an operator.

pub mod admin;
pub mod client;
pub mod failure;
pub mod feed;
pub mod flags;
pub mod guarded;
pub mod readiness;
pub mod series;
pub mod shutdown;
pub mod telemetry;
pub mod version;
pub mod watching;
