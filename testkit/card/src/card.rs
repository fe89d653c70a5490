//! Memory and kernels of a simulated GPU.

mod pieces;

use std::cell::UnsafeCell;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::shared;

/// The most processes on a GPU.
const PROCESSES: usize = 32;
/// The most waiting kernels of one process; beyond that a launch waits, as with the real driver.
pub const QUEUE: usize = 1024;
/// The most events of one process.
pub const EVENTS: usize = 512;
/// How long after its submission work is begun, or an event reached, by a GPU that has nothing else to do; nanoseconds.
/// A few microseconds pass on real ones: right after `cuEventRecord` no event has been reached.
pub const LATENCY: u64 = 5_000;
/// The most pieces of memory that processes share.
const PIECES: usize = 64;
/// No event.
const NO_EVENT: u32 = u32::MAX;

#[repr(C)]
struct Shared {
    cell: UnsafeCell<Contents>,
}

#[repr(C)]
struct Contents {
    total: u64,
    used: u64,
    peak: u64,
    /// The moment until which kernels have been run.
    at: u64,
    processes: [Process; PROCESSES],
    /// Memory that several processes may have, by number less one.
    pieces: [Piece; PIECES],
}

/// Memory that lives as long as any process has it.
#[repr(C)]
struct Piece {
    bytes: u64,
    /// A bit for each process that has it; 0 for a free entry.
    holders: u64,
}

#[repr(C)]
struct Process {
    /// 0 for a free entry.
    pid: u64,
    memory: u64,
    /// Nanoseconds of the GPU's time that it had.
    served: u64,
    /// Work that is done and work that was queued, in total.
    done: u64,
    queued: u64,
    queue: [Work; QUEUE],
    /// When each event was reached; 0 if it was not.
    events: [u64; EVENTS],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Work {
    remaining: u64,
    /// The moment before which it does not begin.
    earliest: u64,
    event: u32,
    _pad: u32,
}

/// One process' view of a GPU.
pub struct Card {
    shared: &'static Shared,
    file: File,
    /// The same file, opened once more and not mapped: its lock on the byte of the seat says that the process lives. The
    /// kernel ends it with the process and with an `exec`; PID namespaces do not matter.
    life: File,
    seat: usize,
    /// Serialises threads of this process; a lock on the file serialises processes.
    turn: Mutex<()>,
}

// SAFETY: the contents are only touched while both locks are held.
unsafe impl Sync for Card {}
// SAFETY: no part of it belongs to a thread.
unsafe impl Send for Card {}

/// The use of a GPU and of each process on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes of memory.
    pub total: u64,
    /// Bytes in use.
    pub used: u64,
    /// The highest number of bytes that was in use.
    pub peak: u64,
    /// Pid, bytes in use, and nanoseconds of the GPU's time.
    pub processes: Vec<(u32, u64, u64)>,
}

/// The lock on the GPU; freed when it is dropped, also by the kernel for a process that was killed.
struct Locked<'a> {
    card: &'a Card,
    _turn: MutexGuard<'a, ()>,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: the file is open and belongs to this process.
        unsafe { libc::flock(self.card.file.as_raw_fd(), libc::LOCK_UN) };
    }
}

impl Locked<'_> {
    #[expect(
        clippy::mut_from_ref,
        reason = "the lock is what makes it exclusive; used once in each function below"
    )]
    fn contents(&self) -> &mut Contents {
        // SAFETY: both locks are held, so there is no other reference.
        unsafe { &mut *self.card.shared.cell.get() }
    }
}

impl Card {
    /// Makes a GPU with `total` bytes of memory.
    pub fn create(path: &Path, total: u64) -> io::Result<()> {
        shared::create::<Shared>(path)?;
        let card = Self::look(path)?;
        card.lock().contents().total = total;
        Ok(())
    }

    /// Opens a GPU only to look at it.
    pub fn look(path: &Path) -> io::Result<Self> {
        // SAFETY: `Shared` is integers; it is only touched under the locks.
        let (shared, file) = unsafe { shared::open::<Shared>(path)? };
        let life = File::options().read(true).write(true).open(path)?;
        Ok(Self { shared, file, life, seat: PROCESSES, turn: Mutex::new(()) })
    }

    /// Opens a GPU to use it. Whatever this process had of it before an `exec` is given back.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut card = Self::look(path)?;
        let locked = card.lock();
        let contents = locked.contents();
        card.reap(contents);
        let free = contents.processes.iter().position(|p| p.pid == 0);
        let seat = free.ok_or_else(|| io::Error::other("too many processes on the card"))?;
        let mut lock = byte(seat);
        // SAFETY: the file is open, and the structure a local.
        if unsafe { libc::fcntl(card.life.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) } != 0 {
            return Err(io::Error::last_os_error());
        }
        contents.processes[seat].pid = u64::from(std::process::id());
        drop(locked);
        card.seat = seat;
        Ok(card)
    }

    /// Takes memory; false where there is not enough.
    pub fn take(&self, bytes: u64) -> bool {
        let locked = self.lock();
        let contents = locked.contents();
        // only at a new peak, since it looks at every process
        if contents.used.saturating_add(bytes) > contents.peak.min(contents.total) {
            self.reap(contents);
        }
        if contents.used.saturating_add(bytes) > contents.total {
            return false;
        }
        contents.used += bytes;
        contents.peak = contents.peak.max(contents.used);
        contents.processes[self.seat].memory += bytes;
        true
    }

    /// Gives back `bytes` of this process.
    pub fn give(&self, bytes: u64) {
        let locked = self.lock();
        let contents = locked.contents();
        contents.used -= bytes;
        contents.processes[self.seat].memory -= bytes;
    }

    /// Queues a kernel that takes `nanoseconds`; `None` where the queue is full.
    pub fn queue(&self, now: u64, nanoseconds: u64) -> Option<u64> {
        self.push(now, Work { remaining: nanoseconds, earliest: now + LATENCY, event: NO_EVENT, _pad: 0 })
    }

    /// Queues an event, which is reached when everything before it is done.
    pub fn record(&self, now: u64, event: u32) -> Option<u64> {
        self.push(now, Work { remaining: 0, earliest: now + LATENCY, event, _pad: 0 })
    }

    /// When an event was reached.
    pub fn reached(&self, now: u64, event: u32) -> Option<u64> {
        let locked = self.lock();
        let contents = locked.contents();
        contents.run(now);
        match contents.processes[self.seat].events[event as usize] {
            0 => None,
            at => Some(at),
        }
    }

    /// `Ok` when the work with this number is done; otherwise the earliest moment at which it can be.
    pub fn finished(&self, now: u64, work: u64) -> Result<(), u64> {
        let locked = self.lock();
        let contents = locked.contents();
        contents.run(now);
        let process = &contents.processes[self.seat];
        if process.done > work {
            return Ok(());
        }
        let of = |n: u64| process.queue[n as usize % QUEUE];
        let end = (process.done..=work).map(of).fold(now, |at, w| at.max(w.earliest) + w.remaining);
        Err(end.max(now + 1000))
    }

    /// The earliest moment at which the queue can have room for one more.
    pub fn room(&self, now: u64) -> u64 {
        let locked = self.lock();
        let contents = locked.contents();
        contents.run(now);
        let end = contents.processes[self.seat].head().map_or(now, |head| now.max(head.earliest) + head.remaining);
        end.max(now + 1000)
    }

    /// The use of the GPU at `now`, in nanoseconds.
    pub fn report(&self, now: u64) -> Report {
        let locked = self.lock();
        let contents = locked.contents();
        self.reap(contents);
        contents.run(now);
        // a piece is shown for the first of those who have it
        let pieces = |seat: usize| {
            let of = contents.pieces.iter().filter(|piece| piece.holders.trailing_zeros() as usize == seat);
            of.map(|piece| piece.bytes).sum::<u64>()
        };
        let of = |(seat, p): (usize, &Process)| (p.pid as u32, p.memory + pieces(seat), p.served);
        let processes = contents.processes.iter().enumerate().filter(|(_, p)| p.pid != 0).map(of).collect();
        Report { total: contents.total, used: contents.used, peak: contents.peak, processes }
    }

    fn push(&self, now: u64, work: Work) -> Option<u64> {
        let locked = self.lock();
        let contents = locked.contents();
        contents.run(now);
        let process = &mut contents.processes[self.seat];
        if process.queued - process.done == QUEUE as u64 {
            return None;
        }
        let number = process.queued;
        process.queue[number as usize % QUEUE] = work;
        process.queued += 1;
        if let Some(event) = process.events.get_mut(work.event as usize) {
            *event = 0;
        }
        Some(number)
    }

    fn lock(&self) -> Locked<'_> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the file is open and belongs to this process.
        while unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_EX) } != 0 {}
        Locked { card: self, _turn: turn }
    }

    /// As the driver does: a process that ended or became another program holds nothing of the GPU any more.
    fn reap(&self, contents: &mut Contents) {
        for seat in 0..PROCESSES {
            if seat == self.seat || contents.processes[seat].pid == 0 || self.lives(seat) {
                continue;
            }
            contents.used -= contents.processes[seat].memory;
            contents.processes[seat].clear();
            for piece in 0..PIECES {
                contents.leave(piece, seat);
            }
        }
    }

    fn lives(&self, seat: usize) -> bool {
        let mut lock = byte(seat);
        // SAFETY: the file is open, and the structure a local.
        let asked = unsafe { libc::fcntl(self.life.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
        asked != 0 || lock.l_type != libc::F_UNLCK as libc::c_short
    }
}

fn byte(seat: usize) -> libc::flock {
    // SAFETY: zero bytes are a value of this structure of integers, and what locks of open files demand of `l_pid`.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (seat as libc::off_t, 1);
    lock
}

impl Contents {
    fn leave(&mut self, piece: usize, seat: usize) {
        let piece = &mut self.pieces[piece];
        if piece.holders & 1 << seat != 0 {
            piece.holders &= !(1 << seat);
            if piece.holders == 0 {
                self.used -= piece.bytes;
            }
        }
    }

    /// Runs kernels up to `now`. Each process with kernels gets the same part of the time.
    fn run(&mut self, now: u64) {
        let mut at = self.at;
        loop {
            for process in &mut self.processes {
                process.finish(at);
            }
            let heads = || self.processes.iter().filter_map(Process::head);
            let begins = heads().map(|head| head.earliest).filter(|earliest| *earliest > at).min();
            let until = begins.unwrap_or(now).min(now);
            let running = || heads().filter(|head| head.earliest <= at);
            let active = running().count() as u64;
            let (Some(shortest), true) = (running().map(|head| head.remaining).min(), at < until) else {
                // nothing runs until the next work may begin
                match begins {
                    Some(next) if next <= now => at = next,
                    _ => break,
                }
                continue;
            };
            let step = shortest.min((until - at) / active);
            for process in &mut self.processes {
                process.serve(at, step);
            }
            at = if step == 0 { until } else { at + step * active };
        }
        self.at = now.max(self.at);
    }
}

impl Process {
    /// The first work that is not done.
    fn head(&self) -> Option<Work> {
        (self.pid != 0 && self.done < self.queued).then(|| self.queue[self.done as usize % QUEUE])
    }

    /// The kernel that runs at a moment has had this much more of the GPU's time.
    fn serve(&mut self, at: u64, nanoseconds: u64) {
        if self.head().is_some_and(|head| head.earliest <= at) {
            self.queue[self.done as usize % QUEUE].remaining -= nanoseconds;
            self.served += nanoseconds;
        }
    }

    /// Finishes work that has no time left.
    fn finish(&mut self, at: u64) {
        while let Some(work) = self.head().filter(|head| head.remaining == 0 && head.earliest <= at) {
            if let Some(event) = self.events.get_mut(work.event as usize) {
                *event = at.max(1);
            }
            self.done += 1;
        }
    }

    fn clear(&mut self) {
        self.pid = 0;
        (self.memory, self.served, self.done, self.queued) = (0, 0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MS: u64 = 1_000_000;

    fn card(name: &str) -> Card {
        let path = std::env::temp_dir().join(format!("standin-card-{name}-{}", std::process::id()));
        Card::create(&path, 1000).unwrap();
        let card = Card::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        card
    }

    #[test]
    fn kernels_of_one_process_run_one_after_the_other() {
        let card = card("queue");
        card.queue(0, 5 * MS).unwrap();
        let second = card.queue(0, 5 * MS).unwrap();
        card.record(0, 7).unwrap();
        assert_eq!(card.finished(4 * MS, second), Err(10 * MS + LATENCY));
        assert_eq!(card.reached(9 * MS, 7), None);
        assert_eq!(card.reached(20 * MS, 7), Some(10 * MS + LATENCY));
        assert_eq!(card.finished(20 * MS, second), Ok(()));
        assert_eq!(card.report(20 * MS).processes, [(std::process::id(), 0, 10 * MS)]);
    }

    #[test]
    fn an_event_on_an_idle_card_is_reached_some_time_after_it_was_recorded() {
        let card = card("event");
        let number = card.record(MS, 3).unwrap();
        assert_eq!(card.reached(MS, 3), None);
        assert_eq!(card.reached(MS + LATENCY - 1, 3), None);
        assert_eq!(card.finished(MS, number), Err(MS + LATENCY));
        assert_eq!(card.reached(MS + 10 * LATENCY, 3), Some(MS + LATENCY));
        // also where it was recorded behind a kernel that has ended meanwhile
        card.queue(2 * MS, 1).unwrap();
        card.record(2 * MS + 2, 4).unwrap();
        assert_eq!(card.reached(3 * MS, 4), Some(2 * MS + 2 + LATENCY));
    }

    #[test]
    fn memory_is_what_is_taken_less_what_is_given() {
        let card = card("memory");
        assert!(card.take(600) && !card.take(401) && card.take(400));
        card.give(700);
        let report = card.report(0);
        assert_eq!((report.used, report.peak, report.total), (300, 1000, 1000));
    }

    #[test]
    fn a_shared_piece_lives_until_the_last_holder_is_gone() {
        let path = std::env::temp_dir().join(format!("standin-card-piece-{}", std::process::id()));
        Card::create(&path, 1000).unwrap();
        // two open files stand for two processes
        let (a, b) = (Card::open(&path).unwrap(), Card::open(&path).unwrap());
        let look = Card::look(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(a.take(700));
        let piece = a.share(600).unwrap();
        assert!(b.hold(piece));
        drop(a);
        assert_eq!(look.report(0).used, 600);
        b.drop_hold(piece);
        assert_eq!(look.report(0).used, 0);
        assert!(!b.hold(piece));
    }

    #[test]
    fn two_processes_share_the_time_evenly() {
        let mut contents: Box<Contents> = {
            // SAFETY: integers only.
            unsafe { Box::new_zeroed().assume_init() }
        };
        for (seat, kernel) in [(0, 30 * MS), (1, 10 * MS)] {
            let process = &mut contents.processes[seat];
            (process.pid, process.queued) = (1, 1);
            process.queue[0] = Work { remaining: kernel, earliest: 0, event: 0, _pad: 0 };
        }
        contents.run(100 * MS);
        // the short one has half of the time until it is done, the long one all of it after that
        assert_eq!(contents.processes[1].events[0], 20 * MS);
        assert_eq!(contents.processes[0].events[0], 40 * MS);
    }
}
