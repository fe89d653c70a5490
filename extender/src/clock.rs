//! The one place where the extender reads the time of day.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use kerf::units::Timestamp;

/// Hands out nanoseconds since 1970, never the same twice, so that they order the pods of a node.
#[derive(Debug, Default)]
pub struct Clock {
    last: AtomicU64,
}

impl Clock {
    /// Now, in nanoseconds since 1970; later than any value given out before.
    pub fn nanos(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let last = self.last.fetch_max(now, Ordering::AcqRel);
        if last < now { now } else { self.last.fetch_add(1, Ordering::AcqRel) + 1 }
    }

    /// Now, in milliseconds since 1970.
    pub fn now(&self) -> Timestamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
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
}
