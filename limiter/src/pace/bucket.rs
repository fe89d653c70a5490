//! How long a container must wait for its use of a GPU to be within its share.
//!
//! The bucket is one moment: `due`, from which on kernels may start. Kernels that ran for a time `b` at a rate `r` move
//! it by `b / r`, from its value or from [`BURST`] ago, whichever is later. It is one atomic integer, shared by all
//! processes of the container.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use kerf_limiter_contract::allowance::WHOLE;

/// Wall time whose unused share is kept for later; nanoseconds.
pub const BURST: u64 = 100_000_000;
/// The longest debt, so that no error of measurement stops a program for long; nanoseconds. A kernel that costs more than
/// this (one of 0.1 s at a hundredth of the GPU) is not paid for in full.
const LONGEST: u64 = 10_000_000_000;

/// The moment from which on kernels may start.
pub fn due(bucket: &AtomicU64, now: u64) -> u64 {
    let due = bucket.load(Relaxed);
    if due <= now.saturating_add(LONGEST) {
        return due;
    }
    let longest = now.saturating_add(LONGEST);
    let _ = bucket.compare_exchange(due, longest, Relaxed, Relaxed);
    longest
}

/// Kernels have run for `busy` nanoseconds until about `now`, at `rate` millionths.
pub fn charge(bucket: &AtomicU64, now: u64, busy: u64, rate: u32) {
    let cost = u128::from(busy) * u128::from(WHOLE) / u128::from(rate.max(1));
    let cost = u64::try_from(cost).unwrap_or(u64::MAX);
    let earliest = now.saturating_sub(busy).saturating_sub(BURST);
    let longest = now.saturating_add(LONGEST);
    let next = |due: u64| Some(due.max(earliest).saturating_add(cost).min(longest));
    let _ = bucket.fetch_update(Relaxed, Relaxed, next);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Kernels of any lengths, one after the other, each as soon as it may.
        #[test]
        fn the_share_holds_over_ten_seconds(rate in 10_000..=990_000_u32, kernels in proptest::collection::vec(1_000_u64..40_000_000, 1..20)) {
            let bucket = AtomicU64::new(0);
            let (start, mut now, mut busy) = (1_000_000_000_000_u64, 1_000_000_000_000_u64, 0_u64);
            let mut kernels = kernels.iter().cycle();
            while now - start < 10_000_000_000 {
                now = now.max(due(&bucket, now));
                let kernel = *kernels.next().unwrap();
                now += kernel;
                busy += kernel;
                charge(&bucket, now, kernel, rate);
            }
            // over the time until the next kernel may start, since the last one is still to be paid for
            let whole = due(&bucket, now).max(now) - start;
            let share = busy as f64 / whole as f64;
            let wanted = f64::from(rate) / f64::from(WHOLE);
            prop_assert!((share - wanted).abs() < 0.012, "{share} {wanted}");
        }

        #[test]
        fn no_content_makes_a_wait_that_does_not_end(due_at in any::<u64>(), now in 0..u64::MAX / 2, busy in any::<u64>(), rate in any::<u32>()) {
            let bucket = AtomicU64::new(due_at);
            charge(&bucket, now, busy, rate);
            prop_assert!(due(&bucket, now) <= now + LONGEST);
        }
    }
}
