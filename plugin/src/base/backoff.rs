//! How long to wait before a retry.

use std::time::Duration;

/// Pauses that double with each failure, up to a bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// For calls that the API server did not answer or refused.
    pub const fn of_api_server() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(30))
    }

    /// How long to wait after the next failure.
    pub fn peek(&self) -> Duration {
        self.next
    }

    /// Counts a failure. Returns how long to wait now.
    pub fn failed(&mut self) -> Duration {
        let now = self.next;
        self.next = (now * 2).min(self.longest);
        now
    }

    /// After a success, or before something else is tried: the next pause is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let pauses: Vec<u64> = (0..5).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!((backoff.peek(), backoff.failed()), (Duration::from_secs(1), Duration::from_secs(1)));
    }
}
