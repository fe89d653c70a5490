//! What pools and graphs ask of the process that they belong to.

use super::account::Refused;
use crate::abi::Device;

/// Cards are given by their position in the limits.
pub trait Budget {
    /// The card that the calling thread's context is on; `None` where the limits do not name it.
    fn here(&self) -> Option<usize>;

    /// The driver's device for a card.
    fn device_of(&self, card: usize) -> Option<Device>;

    /// Reserves, after making room where that is needed and possible.
    fn reserve(&self, card: usize, bytes: u64) -> Result<(), Refused>;

    fn release(&self, card: usize, bytes: u64);

    /// Counts what the driver has taken already, beyond what could be reserved.
    fn force(&self, card: usize, bytes: u64);
}
