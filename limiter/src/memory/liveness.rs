//! Which processes of the shared file still live, and giving back the memory of the others.
//!
//! A process is known by its pid and start time, in its pid namespace. It is gone when no such process is there, when
//! it is a zombie without threads, or when it no longer maps the shared file: after `exec` it is the same process, but
//! the driver has taken everything back. Processes in other pid namespaces cannot be seen here; their entries stay.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU64, Ordering};

use kerf_limiter_contract::process::Stat;
use kerf_limiter_contract::state::{self, Flags, MAX_PROCESSES, Process, State, owner_pid};

/// The shortest time between two looks at the maps of living processes; nanoseconds.
const MAPS_EVERY: u64 = 1_000_000_000;

/// The identity of this process and of the shared file.
pub struct Liveness {
    me: u64,
    namespace: u64,
    /// Inode of the shared file, as `/proc/<pid>/maps` shows it.
    file: u64,
    looked: AtomicU64,
}

/// No entry of the shared file is free.
#[derive(Clone, Copy, Debug)]
pub struct Full;

impl Liveness {
    /// For the process that asks. `file` is the inode of the shared file. `None` where `/proc` cannot be read.
    pub fn of_this_process(file: u64) -> Option<Self> {
        // from the system call: in a new pid namespace `/proc` may still be the old one's, and must not be trusted then
        let pid = std::process::id();
        let stat = Stat::of("/proc/self")?;
        (stat.pid == pid).then_some(())?;
        let namespace = fs::metadata("/proc/self/ns/pid").ok()?.ino();
        Some(Self { me: state::owner(pid, stat.start), namespace, file, looked: AtomicU64::new(0) })
    }

    /// Takes a free entry of the shared file for this process, and gives back what it held before an `exec`.
    pub fn register(&self, state: &State) -> Result<usize, Full> {
        for slot in 0..MAX_PROCESSES {
            let Some(process) = state.processes.get(slot) else { break };
            if process.owner.load(SeqCst) == self.me && process.namespace.load(SeqCst) == self.namespace {
                self.clear(state, slot, self.me);
            }
        }
        for attempt in 0..2 {
            for (slot, process) in state.processes.iter().enumerate() {
                if process.owner.load(SeqCst) == 0
                    && process.owner.compare_exchange(0, self.me, SeqCst, SeqCst).is_ok()
                {
                    for device in &state.devices {
                        device.taken[slot].store(0, SeqCst);
                        device.held[slot].store(0, SeqCst);
                    }
                    process.namespace.store(self.namespace, SeqCst);
                    state.header.high.fetch_max(slot as u32 + 1, SeqCst);
                    return Ok(slot);
                }
            }
            if attempt == 0 && !self.reap(state) {
                break;
            }
        }
        state.header.flags.fetch_or(Flags::PROCESSES.0, SeqCst);
        Err(Full)
    }

    /// Writes this process' identity again where another process has removed it.
    pub fn confirm(&self, state: &State, slot: usize) {
        let Some(process) = state.processes.get(slot) else { return };
        if process.owner.load(Ordering::Relaxed) != self.me {
            state.header.flags.fetch_or(Flags::OVERWRITTEN.0, SeqCst);
            process.owner.store(self.me, SeqCst);
            process.namespace.store(self.namespace, SeqCst);
            state.header.high.fetch_max(slot as u32 + 1, SeqCst);
        }
    }

    /// Clears the entries of all processes that are gone; returns whether anything was given back.
    pub fn reap(&self, state: &State) -> bool {
        let now = crate::clock::now();
        let last = self.looked.load(Ordering::Relaxed);
        let look = last == 0 || now.saturating_sub(last) >= MAPS_EVERY;
        if look {
            self.looked.store(now.max(1), Ordering::Relaxed);
        }
        let mut any = false;
        for (slot, process) in state.processes.iter().enumerate() {
            let owner = process.owner.load(SeqCst);
            let holds = || state.devices.iter().any(|d| d.taken[slot].load(SeqCst) != 0);
            if (owner == 0 && holds()) || (owner != 0 && !self.alive(owner, process, look)) {
                any |= holds();
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
        for device in &state.devices {
            device.held[slot].store(0, SeqCst);
            device.taken[slot].store(0, SeqCst);
        }
        process.seen.store(0, SeqCst);
        process.owner.store(0, SeqCst);
    }

    fn alive(&self, owner: u64, process: &Process, look: bool) -> bool {
        if owner == self.me || process.namespace.load(SeqCst) != self.namespace || self.me == u64::MAX {
            return true;
        }
        let pid = owner_pid(owner);
        let Some(stat) = Stat::of(format!("/proc/{pid}")) else {
            // gone, unless `/proc` hides other users' processes
            // SAFETY: signal 0 is never delivered; the call only asks.
            let known = unsafe { libc::kill(pid as libc::pid_t, 0) } == 0;
            return known || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH);
        };
        if state::owner(pid, stat.start) != owner || (stat.ended() && stat.threads <= 1) {
            return false;
        }
        !look || maps(pid, self.file).unwrap_or(true)
    }

    /// For tests of accounts, where processes are numbers and all live.
    #[cfg(test)]
    pub fn everybody() -> Self {
        Self { me: u64::MAX, namespace: 0, file: 0, looked: AtomicU64::new(0) }
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
