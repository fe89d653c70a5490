//! Simulated time.
//!
//! Every participant (a process with one thread) is either at work, and time stands still, or waits for a moment. When
//! all expected participants wait, time jumps to the earliest of the moments.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::{ptr, thread};

use crate::shared;

/// The most participants.
const SEATS: usize = 32;
/// How often to look whether time has moved, fifty times a second, before giving up.
const PATIENCE: u32 = 3000;
/// In a seat: free.
const EMPTY: u64 = 0;
/// In a seat: a participant at work. A higher value is the moment that the participant waits for.
const WORKING: u64 = 1;

#[repr(C)]
struct Shared {
    now: AtomicU64,
    /// The expected number of participants, less those that have left.
    expected: AtomicU32,
    lock: AtomicU32,
    /// Changes whenever time moves.
    moves: AtomicU32,
    _pad: AtomicU32,
    seats: [AtomicU64; SEATS],
}

/// One participant in the simulated time of a file.
pub struct Clock {
    shared: &'static Shared,
    seat: usize,
}

impl Clock {
    /// Makes the file, with time at `now` nanoseconds, for `expected` participants.
    pub fn create(path: &Path, now: u64, expected: u32) -> io::Result<()> {
        shared::create::<Shared>(path)?;
        // SAFETY: `Shared` is atomic integers.
        let (shared, _) = unsafe { shared::open::<Shared>(path)? };
        shared.now.store(now, SeqCst);
        shared.expected.store(expected, SeqCst);
        Ok(())
    }

    /// Joins as a participant that is at work.
    pub fn join(path: &Path) -> io::Result<Self> {
        // SAFETY: `Shared` is atomic integers.
        let (shared, _) = unsafe { shared::open::<Shared>(path)? };
        let free = |s: &AtomicU64| s.compare_exchange(EMPTY, WORKING, SeqCst, SeqCst).is_ok();
        let seat = shared.seats.iter().position(free).ok_or_else(|| io::Error::other("too many participants"))?;
        Ok(Self { shared, seat })
    }

    /// The simulated time, in nanoseconds.
    pub fn now(&self) -> u64 {
        self.shared.now.load(SeqCst)
    }

    /// Waits for a moment of the simulated time, in nanoseconds.
    pub fn sleep_until(&self, moment: u64) {
        if moment <= self.now() {
            return;
        }
        let Some(seat) = self.shared.seats.get(self.seat) else { return };
        seat.store(moment.max(WORKING + 1), SeqCst);
        self.advance();
        // on the machine's own clock: an expected participant does not come
        let mut still = 0;
        loop {
            assert!(still < PATIENCE, "simulated time stands still");
            let moves = self.shared.moves.load(SeqCst);
            if seat.load(SeqCst) == WORKING {
                return;
            }
            let patience = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            // SAFETY: the word is in memory that is never unmapped, and the time is a local.
            let woken = unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    self.shared.moves.as_ptr(),
                    libc::FUTEX_WAIT,
                    moves,
                    &raw const patience,
                    ptr::null::<u32>(),
                    0,
                )
            };
            let moved = woken == 0 || self.shared.moves.load(SeqCst) != moves;
            still = if moved { 0 } else { still + 1 };
        }
    }

    /// Leaves: time does not wait for this participant any more.
    pub fn leave(&self) {
        if let Some(seat) = self.shared.seats.get(self.seat)
            && seat.swap(EMPTY, SeqCst) != EMPTY
        {
            self.shared.expected.fetch_sub(1, SeqCst);
            self.advance();
        }
    }

    fn advance(&self) {
        while self.shared.lock.compare_exchange(0, 1, SeqCst, SeqCst).is_err() {
            thread::yield_now();
        }
        let seats = || self.shared.seats.iter().map(|s| s.load(SeqCst)).filter(|s| *s != EMPTY);
        let all = seats().count() >= self.shared.expected.load(SeqCst) as usize;
        if let Some(first) = seats().min()
            && all
            && first != WORKING
        {
            self.shared.now.fetch_max(first, SeqCst);
            for seat in &self.shared.seats {
                if (WORKING + 1..=first).contains(&seat.load(SeqCst)) {
                    seat.store(WORKING, SeqCst);
                }
            }
        }
        self.shared.lock.store(0, SeqCst);
        self.shared.moves.fetch_add(1, SeqCst);
        // SAFETY: the word is in memory that is never unmapped.
        unsafe { libc::syscall(libc::SYS_futex, self.shared.moves.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_when_all_wait_and_to_the_earliest_moment() {
        let path = std::env::temp_dir().join(format!("standin-clock-{}", std::process::id()));
        Clock::create(&path, 100, 2).unwrap();
        let path2 = path.clone();
        let other = thread::spawn(move || {
            let clock = Clock::join(&path2).unwrap();
            let mut seen = Vec::new();
            for moment in [110, 130, 150] {
                clock.sleep_until(moment);
                seen.push(clock.now());
            }
            clock.leave();
            seen
        });
        let clock = Clock::join(&path).unwrap();
        let mut seen = Vec::new();
        for moment in [120, 140, 1000] {
            clock.sleep_until(moment);
            seen.push(clock.now());
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(seen, [120, 140, 1000]);
        assert_eq!(other.join().unwrap(), [110, 130, 150]);
    }
}
