//! Which processes of the shared file still live, and giving back the memory of the others.
//!
//! A process that has an entry holds its lock ([`super::locks`]). One without the lock has ended or became another
//! program, unless it has closed the descriptor: in the same PID namespace its pid and start time, its state, and
//! whether it maps the shared file tell that. In another namespace it counts as gone until it takes the lock again, which
//! it does at its next allocation, with all that it holds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, Ordering};

use kerf_limiter_contract::process::Stat;
use kerf_limiter_contract::state::{self, Flags, Process, State, owner_pid};

use super::locks::Locks;
use super::shared;
use crate::files::Mapped;

/// The shortest time between two looks at this process' own lock; nanoseconds.
const RENEW: u64 = 1_000_000_000;

/// The identity of this process and of the shared file.
pub struct Liveness {
    me: u64,
    namespace: u64,
    /// Inode of the shared file, as `/proc/<pid>/maps` shows it.
    file: u64,
    locks: Locks,
    renewed: AtomicU64,
}

/// No entry of the shared file is free.
#[derive(Clone, Copy, Debug)]
pub struct Full;

impl Liveness {
    /// For the process that asks. `None` where `/proc` cannot be read.
    pub fn of_this_process(mapped: &Mapped) -> Option<Self> {
        // from the system call: in a new pid namespace `/proc` may still be the old one's, and must not be trusted then
        let pid = std::process::id();
        let stat = Stat::of("/proc/self")?;
        (stat.pid == pid).then_some(())?;
        let namespace = fs::metadata("/proc/self/ns/pid").ok()?.ino();
        let locks = Locks::new(mapped.descriptor, mapped.file);
        // a parent may have closed it before it forked
        locks.reopen();
        let (me, renewed) = (state::owner(pid, stat.start), AtomicU64::new(0));
        Some(Self { me, namespace, file: mapped.file.1, locks, renewed })
    }

    /// Takes a free entry of the shared file for this process, and gives back what it held before an `exec`.
    pub fn register(&self, state: &State) -> Result<usize, Full> {
        let own = |p: &Process| p.owner.load(SeqCst) == self.me && p.namespace.load(SeqCst) == self.namespace;
        if state.processes.iter().any(own) {
            let _turn = self.locks.turn();
            let before = state.processes.iter().enumerate().filter(|(_, process)| own(process));
            before.for_each(|(slot, _)| self.clear(state, slot, self.me));
        }
        for attempt in 0..2 {
            for (slot, process) in state.processes.iter().enumerate() {
                // the lock comes first: an entry with an owner and without its lock is taken for a dead one's
                if process.owner.load(SeqCst) != 0 || self.locks.take(slot) == Some(false) {
                    continue;
                }
                if process.owner.compare_exchange(0, self.me, SeqCst, SeqCst).is_ok() {
                    empty(state, slot);
                    process.namespace.store(self.namespace, SeqCst);
                    state.header.high.fetch_max(slot as u32 + 1, SeqCst);
                    return Ok(slot);
                }
                self.locks.release(slot);
            }
            if attempt == 0 && !self.reap(state) {
                break;
            }
        }
        state.header.flags.fetch_or(Flags::PROCESSES.0, SeqCst);
        Err(Full)
    }

    /// Whether the entry is still this process'. Takes the lock again where the program has closed the descriptor, and
    /// writes the identity again where another process has removed it.
    pub fn confirm(&self, state: &State, slot: usize) -> bool {
        let Some(process) = state.processes.get(slot) else { return true };
        let now = crate::clock::about();
        let same = process.owner.load(Ordering::Relaxed) == self.me;
        if same && now.wrapping_sub(self.renewed.load(Ordering::Relaxed)) < RENEW {
            return true;
        }
        self.renewed.store(now, Ordering::Relaxed);
        if !self.locks.renew(slot) {
            return false;
        }
        if !same {
            state.header.flags.fetch_or(Flags::OVERWRITTEN.0, SeqCst);
            process.owner.store(self.me, SeqCst);
            process.namespace.store(self.namespace, SeqCst);
            state.header.high.fetch_max(slot as u32 + 1, SeqCst);
        }
        true
    }

    /// Clears the entries of all processes that are gone; returns whether there were any.
    pub fn reap(&self, state: &State) -> bool {
        let _turn = self.locks.turn();
        let mut any = false;
        for (slot, process) in state.processes.iter().enumerate() {
            let owner = process.owner.load(SeqCst);
            let left_over = || owner == 0 && state.devices.iter().any(|d| d.taken[slot].load(SeqCst) != 0);
            if (owner != 0 && !self.alive(owner, process, slot)) || left_over() {
                any = true;
                self.clear(state, slot, owner);
            }
        }
        any
    }

    /// Empties an entry, unless it has changed hands. Meanwhile it belongs to this process, so that no other takes it
    /// half empty; if this process is killed, the next one to reap clears it.
    fn clear(&self, state: &State, slot: usize, owner: u64) {
        let Some(process) = state.processes.get(slot) else { return };
        if process.owner.compare_exchange(owner, self.me, SeqCst, SeqCst).is_err() {
            return;
        }
        process.namespace.store(self.namespace, SeqCst);
        // memory that others have as well counts by itself from now on
        shared::leave(state, slot);
        empty(state, slot);
        process.seen.store(0, SeqCst);
        process.owner.store(0, SeqCst);
    }

    /// The turn to change what several processes share.
    pub fn turn(&self) -> super::locks::Turn<'_> {
        self.locks.turn()
    }

    fn alive(&self, owner: u64, process: &Process, slot: usize) -> bool {
        if owner == self.me || self.me == u64::MAX {
            return true;
        }
        let same = process.namespace.load(SeqCst) == self.namespace;
        match self.locks.held(slot) {
            Some(true) => true,
            Some(false) => same && self.runs(owner).unwrap_or(false),
            None => !same || self.runs(owner).unwrap_or(true),
        }
    }

    /// Whether a process of this PID namespace is still the same and maps the shared file; `None` where `/proc` hides
    /// that, as it can for processes of other users.
    fn runs(&self, owner: u64) -> Option<bool> {
        let pid = owner_pid(owner);
        let Some(stat) = Stat::of(format!("/proc/{pid}")) else {
            // SAFETY: signal 0 is never delivered; the call only asks.
            let known = unsafe { libc::kill(pid as libc::pid_t, 0) } == 0;
            let gone = !known && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
            return gone.then_some(false);
        };
        if state::owner(pid, stat.start) != owner || (stat.ended() && stat.threads <= 1) {
            return Some(false);
        }
        maps(pid, self.file)
    }

    /// For tests of accounts, where processes are numbers and all live.
    #[cfg(test)]
    pub fn everybody() -> Self {
        Self { me: u64::MAX, namespace: 0, file: 0, locks: Locks::new(-1, (0, 0)), renewed: AtomicU64::new(0) }
    }
}

/// Sets all that an entry holds to nothing.
fn empty(state: &State, slot: usize) {
    for (device, extra) in state.devices.iter().zip(&state.extras) {
        device.held[slot].store(0, SeqCst);
        device.taken[slot].store(0, SeqCst);
        extra.context[slot].store(0, SeqCst);
        extra.changes[slot].store(0, SeqCst);
    }
}

/// Whether the process maps the file with this inode; `None` where it may not be asked.
fn maps(pid: u32, inode: u64) -> Option<bool> {
    let text = fs::read(format!("/proc/{pid}/maps")).ok()?;
    if text.is_empty() {
        return None;
    }
    let wanted = inode.to_string();
    // "address perms offset dev inode path"
    let of = |line: &[u8]| {
        let mut words = line.split(|b| *b == b' ').filter(|w| !w.is_empty());
        words.nth(4) == Some(wanted.as_bytes())
    };
    Some(text.split(|b| *b == b'\n').any(of))
}
