//! Which parts of the last second are charged already, so that kernels that run at the same time count once.
//!
//! A ring of time slices, shared by all processes of the container; each holds how many of its nanoseconds are charged.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use kerf_limiter_contract::state::{SLICE, SLICES};

/// Charges the time from `start` to `end`; returns the nanoseconds that were not charged before.
pub fn charge(timeline: &[AtomicU64; SLICES], start: u64, end: u64) -> u64 {
    if end <= start {
        return 0;
    }
    // longer than the ring: the part before it cannot be in it
    let ring = SLICE * (SLICES as u64 - 1);
    let from = start.max(end.saturating_sub(ring));
    let mut charged = from - start;
    let mut at = from;
    while at < end {
        let number = at / SLICE;
        let next = ((number + 1) * SLICE).min(end);
        charged += slice(timeline, number, next - at);
        at = next;
    }
    charged
}

/// Charges at most `amount` nanoseconds of one slice.
fn slice(timeline: &[AtomicU64; SLICES], number: u64, amount: u64) -> u64 {
    let Some(place) = timeline.get(number as usize % SLICES) else { return amount };
    let tag = number as u32;
    let mut word = place.load(Relaxed);
    loop {
        let (found, charged) = ((word >> 32) as u32, (word & 0xffff_ffff).min(SLICE));
        let age = tag.wrapping_sub(found) as i32;
        if age < 0 && word != 0 {
            // the place holds a later slice: this one is no longer remembered
            return amount;
        }
        let before = if age == 0 { charged } else { 0 };
        let more = amount.min(SLICE - before);
        let new = u64::from(tag) << 32 | (before + more);
        match place.compare_exchange_weak(word, new, Relaxed, Relaxed) {
            Ok(_) => return more,
            Err(now) => word = now,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn empty() -> Box<[AtomicU64; SLICES]> {
        Box::new([const { AtomicU64::new(0) }; SLICES])
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn what_overlaps_counts_once() {
        let t = empty();
        assert_eq!(charge(&t, 100 * MS, 200 * MS), 100 * MS);
        assert_eq!(charge(&t, 150 * MS, 250 * MS), 50 * MS);
        assert_eq!(charge(&t, 100 * MS, 250 * MS), 0);
        assert_eq!(charge(&t, 90 * MS, 100 * MS), 10 * MS);
    }

    #[test]
    fn what_is_longer_than_the_ring_counts_in_full() {
        let t = empty();
        assert_eq!(charge(&t, 0, 5_000 * MS), 5_000 * MS);
        assert_eq!(charge(&t, 4_900 * MS, 5_000 * MS), 0);
    }

    proptest! {
        #[test]
        fn no_time_is_charged_more_than_once_or_lost(intervals in proptest::collection::vec((0..400_u64, 1..60_u64), 1..40)) {
            let t = empty();
            let mut marked = vec![false; 500];
            let mut sum = 0;
            for (start, length) in intervals {
                sum += charge(&t, start * SLICE, (start + length) * SLICE);
                marked[start as usize..(start + length) as usize].fill(true);
            }
            prop_assert_eq!(sum, marked.iter().filter(|m| **m).count() as u64 * SLICE);
        }

        #[test]
        fn any_content_charges_no_more_than_asked(content in any::<u64>(), start in 0..u64::MAX / 2, length in 0..10 * SLICE) {
            let t = empty();
            t[(start / SLICE) as usize % SLICES].store(content, Relaxed);
            prop_assert!(charge(&t, start, start + length) <= length);
        }
    }
}
