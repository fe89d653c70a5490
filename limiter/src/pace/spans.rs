//! Which times this process was charged for lately, so that kernels of several streams that run at the same time count
//! once. What several processes run at the same time is known less exactly: [`super::timeline`].

use std::collections::VecDeque;

/// The most spans that are remembered; those before are taken to be free.
const MOST: usize = 64;

/// Times that do not overlap or touch, the earliest first.
#[derive(Debug, Default)]
pub struct Spans(VecDeque<(u64, u64)>);

impl Spans {
    /// Adds the time from `start` to `end`, and passes on the parts of it that were free.
    pub fn add(&mut self, start: u64, end: u64, mut free: impl FnMut(u64, u64)) {
        if end <= start {
            return;
        }
        let first = self.0.iter().take_while(|(_, e)| *e < start).count();
        let (mut at, mut whole, mut last) = (start, (start, end), first);
        for &(s, e) in self.0.iter().skip(first).take_while(|(s, _)| *s <= end) {
            if at < s {
                free(at, s);
            }
            at = at.max(e);
            whole = (whole.0.min(s), whole.1.max(e));
            last += 1;
        }
        if at < end {
            free(at, end);
        }
        self.0.drain(first..last);
        self.0.insert(first, whole);
        if self.0.len() > MOST {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_moment_is_free_once(added in proptest::collection::vec((0..200_u64, 0..40_u64), 1..60)) {
            let (mut spans, mut taken) = (Spans::default(), [false; 300]);
            for (start, length) in added {
                let mut parts = Vec::new();
                spans.add(start, start + length, |s, e| parts.push((s, e)));
                for at in parts.into_iter().flat_map(|(s, e)| s..e) {
                    prop_assert!((start..start + length).contains(&at) && !taken[at as usize]);
                    taken[at as usize] = true;
                }
                prop_assert!((start..start + length).all(|at| taken[at as usize]));
                prop_assert!(spans.0.iter().zip(spans.0.iter().skip(1)).all(|(a, b)| a.1 < b.0));
            }
        }

        #[test]
        fn only_the_latest_are_remembered(count in 1..300_u64) {
            let mut spans = Spans::default();
            (0..count).for_each(|i| spans.add(i * 10, i * 10 + 5, |_, _| {}));
            prop_assert_eq!(spans.0.len() as u64, count.min(MOST as u64));
            prop_assert_eq!(spans.0.back().copied(), Some((count * 10 - 10, count * 10 - 5)));
        }
    }
}
