//! One GPU.

pub const MAX_DEVICES: usize = 1;
