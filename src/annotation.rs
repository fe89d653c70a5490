//! The annotations that kerf writes on Pods and Nodes, and how they are read back.
//!
//! Two records of a placement are written together: `<D>/gpu-placement`, the authority, by container name and
//! card id ([`placement`]); and the compatibility record that gpu-admission wrote and gpu-manager reads, by
//! position and card index ([`compat`]). The plugin's inventory of a node is in [`inventory`], and what it did to
//! enforce a pod's shares in [`isolation`].
//!
//! Any annotation may have been written by a tenant: reading is strict, bounded by [`MAX_BYTES`] and never panics, and
//! a placement is accepted only where it serves the pod's own request ([`crate::plan::Plan::serves`]).

pub mod compat;
pub mod inventory;
pub mod isolation;
mod keys;
pub mod placement;
mod record;
mod unreadable;

pub use keys::{BadDomain, Domain, Keys};
pub use record::{Record, confirmed, read, read_bound, write};
pub use unreadable::{MAX_BYTES, Unreadable};
