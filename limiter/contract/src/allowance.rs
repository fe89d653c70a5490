//! How much of each GPU's time a container may use now. The host decides it while the container runs.
//!
//! A container alone cannot know that: while two containers have kernels on a GPU, the GPU switches between
//! them, and each sees its kernels take longer. The host sees what every container really gets (NVML), decides
//! ([`crate::arbiter`]) and writes here. Where the file is missing, or was not written for [`STALE_MS`], the limiter
//! takes `vcuda-core`.
//!
//! The file is [`BYTES`] long: [`MAGIC`], then one 8-byte [`entry`] for each GPU in the order of the limits, in the
//! machine's byte order. Entries are written in place, one at a time; a torn entry lasts until the next write.

use crate::limits::MAX_DEVICES;

/// The first eight bytes of the file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"kerfallw");
/// The file's exact length.
pub const BYTES: usize = 8 + 8 * MAX_DEVICES;
/// The whole GPU, in the unit of entries: millionths.
pub const WHOLE: u32 = 1_000_000;
/// An older entry is ignored; milliseconds.
pub const STALE_MS: u32 = 5_000;

/// Where a GPU's entry begins in the file.
pub fn offset(device: usize) -> usize {
    8 + 8 * device
}

/// The entry for one GPU: the millionths of wall time in which the container may have kernels on the GPU, and when
/// that was decided (`CLOCK_MONOTONIC`, nanoseconds). Zero, as in a new file, is an entry that was never written.
pub fn entry(millionths: u32, now: u64) -> u64 {
    u64::from(milliseconds(now)) << 32 | u64::from(millionths.clamp(1, WHOLE))
}

/// The millionths in an entry; `None` where it was never written or is stale at `now`.
pub fn read(entry: u64, now: u64) -> Option<u32> {
    let (at, millionths) = ((entry >> 32) as u32, (entry & 0xffff_ffff) as u32);
    let age = milliseconds(now).wrapping_sub(at);
    // another CPU's clock may be a little ahead: then the entry counts as fresh
    let fresh = age <= STALE_MS || age >= u32::MAX - STALE_MS;
    ((1..=WHOLE).contains(&millionths) && fresh).then_some(millionths)
}

/// The content of a new file, without any decision.
pub fn blank() -> Vec<u8> {
    let mut bytes = MAGIC.to_ne_bytes().to_vec();
    bytes.resize(BYTES, 0);
    bytes
}

fn milliseconds(nanoseconds: u64) -> u32 {
    (nanoseconds / 1_000_000) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_file_decides_nothing() {
        assert_eq!(blank().len(), BYTES);
        assert_eq!(read(0, 0), None);
        assert_eq!(read(0, u64::MAX), None);
    }

    proptest! {
        #[test]
        fn an_entry_holds_until_it_is_stale(millionths in 1..=WHOLE, at in 0..u64::MAX / 2, later in 0_u64..20_000) {
            let read = read(entry(millionths, at), at + later * 1_000_000);
            prop_assert_eq!(read, (later <= u64::from(STALE_MS)).then_some(millionths));
        }

        #[test]
        fn no_entry_gives_nothing_or_more_than_a_card(entry in any::<u64>(), now in any::<u64>()) {
            prop_assert!(read(entry, now).is_none_or(|m| (1..=WHOLE).contains(&m)));
        }
    }
}
