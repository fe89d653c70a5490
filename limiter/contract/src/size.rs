//! How much the shared file has room for.

/// The most processes of one container that use GPUs at the same time.
pub const MAX_PROCESSES: usize = 1024;
/// The most pieces of memory that processes of one container share with each other.
pub const MAX_SHARED: usize = 512;
/// Slices of time for which the use of a GPU is remembered; see [`crate::state::SLICE`].
pub const SLICES: usize = 512;
