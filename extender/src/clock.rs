//! The one place where the extender reads clocks.
//!
//! Durations use a monotonic clock ([`Clock::now`]); times that are written into records use the time of day
//! ([`Clock::nanos`]), which may be set forward and back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kerf::units::Timestamp;

/// Gives nanoseconds since 1970, each value once, so that they order the pods of a node; and milliseconds since it was
/// created.
#[derive(Debug)]
pub struct Clock {
    last: AtomicU64,
    made: Instant,
    day: fn() -> SystemTime,
}

impl Default for Clock {
    fn default() -> Self {
        Self::with_time_of_day(SystemTime::now)
    }
}

impl Clock {
    /// A clock that takes the time of day from `day`, for tests.
    pub fn with_time_of_day(day: fn() -> SystemTime) -> Self {
        Self { last: AtomicU64::default(), made: Instant::now(), day }
    }

    /// The time of day in nanoseconds since 1970; greater than any value returned before.
    pub fn nanos(&self) -> u64 {
        let now = self.day();
        let last = self.last.fetch_max(now, Ordering::AcqRel);
        if last < now { now } else { self.last.fetch_add(1, Ordering::AcqRel) + 1 }
    }

    /// Milliseconds since the clock was created. Setting the time of day does not change it.
    pub fn now(&self) -> Timestamp {
        Timestamp(u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// How long ago a time of day is, in milliseconds; `None` where it is in the future.
    pub fn since(&self, nanos: u64) -> Option<u64> {
        Some(self.day().checked_sub(nanos)? / 1_000_000)
    }

    fn day(&self) -> u64 {
        let now = (self.day)().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanos_never_repeat() {
        let clock = Clock::default();
        let times: Vec<u64> = (0..10_000).map(|_| clock.nanos()).collect();
        assert!(times.is_sorted_by(|a, b| a < b));
    }

    static STEP: AtomicU64 = AtomicU64::new(0);

    fn stepped() -> SystemTime {
        UNIX_EPOCH + std::time::Duration::from_secs(1_000_000 + STEP.load(Ordering::Acquire))
    }

    #[test]
    fn a_step_of_the_time_of_day_moves_no_deadline() {
        let clock = Clock::with_time_of_day(stepped);
        let (before, first) = (clock.now(), clock.nanos());
        STEP.store(3_600, Ordering::Release);
        assert!(clock.now() < before.plus(60_000), "an hour forward");
        assert_eq!(clock.since(first), Some(3_600_000));
        let later = clock.nanos();
        STEP.store(0, Ordering::Release);
        assert!(clock.now() >= before && clock.now() < before.plus(60_000), "an hour back");
        assert!(clock.nanos() > later, "the order of what was written stays");
        assert_eq!(clock.since(later), None);
    }
}
