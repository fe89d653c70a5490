//! What pools and graphs need from their process.

use super::account::Refused;
use crate::abi::Device;

/// GPUs are given by their position in the limits.
pub trait Budget {
    /// The GPU of the calling thread's context; `None` where the limits do not name it.
    fn here(&self) -> Option<usize>;

    /// The driver's device for a GPU.
    fn device_of(&self, card: usize) -> Option<Device>;

    /// Reserves bytes, after making room where that is needed and possible.
    fn reserve(&self, card: usize, bytes: u64) -> Result<(), Refused>;

    fn release(&self, card: usize, bytes: u64);

    /// Counts bytes that the driver has taken already, beyond those that could be reserved.
    fn force(&self, card: usize, bytes: u64);
}
