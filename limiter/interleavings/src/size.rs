//! A few processes.

pub const MAX_PROCESSES: usize = 3;
pub const MAX_SHARED: usize = 2;
pub const SLICES: usize = 1;
