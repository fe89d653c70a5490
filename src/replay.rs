//! Replays a workload against a cluster under a policy, without a cluster.
//!
//! Pods come one after the other and are placed immediately or dropped, as in the simulator behind "Beware of
//! Fragmentation" (USENIX ATC 2023); pods with a lifetime leave again. The choice is made by the same code as in a live
//! cluster, [`crate::placement::market`].
//!
//! Pure: the caller reads the input and shows the outcome.

mod curve;
mod log;
mod run;
mod workload;

pub use curve::{Curve, Point};
pub use log::write_log;
pub use run::{Failure, Outcome, Placed, Run};
pub use workload::{Arrivals, CardKind, Machine, Pod, Random, Stay, Step, Workload, shuffle_and_fill, stream};
