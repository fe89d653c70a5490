//! The process around a program: logs, shutdown, readiness and the administrative HTTP routes. Knows nothing
//! of GPUs, so that both daemons behave alike towards an operator.

pub mod admin;
pub mod readiness;
pub mod shutdown;
pub mod telemetry;
