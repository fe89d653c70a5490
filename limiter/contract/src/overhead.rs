//! What the driver takes of a GPU for a process beyond what the process asked for: contexts, code, local memory,
//! executable graphs. Only the host can measure it: the memory that NVML shows for a process, less what the process
//! holds by its entry in [`crate::state`].
//!
//! A process estimates that itself until the host has measured it ([`crate::limits::DeviceLimits::context`]), and holds
//! the estimate by its entry ([`crate::state::Extra::context`]). The host writes the difference.
//!
//! The file is [`BYTES`] long: [`MAGIC`], then for each GPU in the order of the limits, and for each position in
//! [`crate::state::State::processes`], an entry of 16 bytes, in the machine's byte order: by how many bytes more, or
//! fewer (`i64`), than it estimated the driver takes for the process, and the
//! [`owner`](crate::state::Process::owner) that this was measured for. Nothing is added for a process that no entry is
//! for.
//!
//! The host writes entries in place while processes read them: first the bytes, then the owner. A reader may see the
//! bytes of a new entry with the owner of the old one, until the next look.

use std::mem::size_of;

use crate::limits::MAX_DEVICES;
use crate::state::MAX_PROCESSES;

/// The first eight bytes of the file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"kerfover");
/// Bytes before the first entry: [`MAGIC`], and zeros.
const HEADER: usize = 16;
/// The file's exact length.
pub const BYTES: usize = HEADER + MAX_DEVICES * MAX_PROCESSES * ENTRY;
const ENTRY: usize = 2 * size_of::<u64>();

/// Where the entry of a process on a GPU begins in the file.
pub fn offset(device: usize, slot: usize) -> usize {
    HEADER + (device * MAX_PROCESSES + slot) * ENTRY
}

/// Where the entry's owner is.
pub fn owner_offset(device: usize, slot: usize) -> usize {
    offset(device, slot) + size_of::<u64>()
}

/// The beginning of a new file; all behind it is zero.
pub fn blank() -> Vec<u8> {
    MAGIC.to_ne_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_each_other_up_to_the_end() {
        assert_eq!(offset(0, 0), 16);
        assert_eq!(offset(1, 0), offset(0, MAX_PROCESSES - 1) + 16);
        assert_eq!(owner_offset(MAX_DEVICES - 1, MAX_PROCESSES - 1) + 8, BYTES);
    }
}
