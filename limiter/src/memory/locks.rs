//! Record locks on the shared file: which of its entries have a living owner, and whose turn it is to change entries of
//! others. The kernel ends the locks of a process with it, whatever ended it; a child of a `fork` has none of them, and
//! after `exec` the descriptor is closed and they are gone. They need no `/proc`, and work across PID namespaces.
//!
//! POSIX locks end when the process closes *any* descriptor of the file. The limiter opens it once and never closes it;
//! a program that closes all descriptors ends the locks nevertheless. So a missing lock alone does not prove an end
//! ([`super::liveness`]), and [`Locks::renew`] takes it again.

use std::fs::File;
use std::mem;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use kerf_limiter_contract::{path, state};

/// Descriptors from this number on are used, so that a program which closes its standard streams, or those that it can
/// think of, finds the numbers that it expects.
const DESCRIPTORS: RawFd = 200;
/// Attempts to get the turn; after that the process that has it is taken to have stopped, and it is done without.
const PATIENCE: u32 = 2_000;

pub struct Locks {
    descriptor: AtomicI32,
    /// Device and inode of the file.
    file: (u64, u64),
    /// The threads of this process take turns, since record locks belong to processes.
    turn: Mutex<()>,
}

/// The turn of this process to change entries of others; over when it is dropped.
pub struct Turn<'a> {
    locks: &'a Locks,
    taken: bool,
    _thread: MutexGuard<'a, ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.taken {
            self.locks.release(state::TURN);
        }
    }
}

impl Locks {
    /// On a file, by device and inode, that is open under this number, or was when this process was forked.
    pub fn new(descriptor: RawFd, file: (u64, u64)) -> Self {
        Self { descriptor: AtomicI32::new(descriptor), file, turn: Mutex::default() }
    }

    /// Takes the lock of an entry; `false` where another process has it, `None` where there are no locks.
    pub fn take(&self, byte: usize) -> Option<bool> {
        let mut lock = record(byte, libc::F_WRLCK);
        // SAFETY: the descriptor is the file's, and the structure a local.
        let result = unsafe { libc::fcntl(self.usable()?, libc::F_SETLK, &raw mut lock) };
        match (result, std::io::Error::last_os_error().raw_os_error()) {
            (0, _) => Some(true),
            (_, Some(libc::EAGAIN | libc::EACCES)) => Some(false),
            _ => None,
        }
    }

    pub fn release(&self, byte: usize) {
        let mut lock = record(byte, libc::F_UNLCK);
        if let Some(descriptor) = self.usable() {
            // SAFETY: the descriptor is the file's, and the structure a local.
            unsafe { libc::fcntl(descriptor, libc::F_SETLK, &raw mut lock) };
        }
    }

    /// Whether another process has the lock of an entry; `None` where that cannot be told.
    pub fn held(&self, byte: usize) -> Option<bool> {
        let mut lock = record(byte, libc::F_WRLCK);
        // SAFETY: the descriptor is the file's, and the structure a local.
        let result = unsafe { libc::fcntl(self.usable()?, libc::F_GETLK, &raw mut lock) };
        (result == 0).then_some(lock.l_type != libc::F_UNLCK as libc::c_short)
    }

    /// Opens the file again where the program has closed it.
    pub fn reopen(&self) {
        let _thread = self.thread();
        if self.usable().is_none()
            && let Ok(file) = File::options().read(true).write(true).open(path::STATE)
            && file.metadata().is_ok_and(|m| (m.dev(), m.ino()) == self.file)
        {
            self.descriptor.store(keep(file), Ordering::Release);
        }
    }

    /// Takes the lock of this process' entry again where it was lost; `false` where another process has it.
    pub fn renew(&self, byte: usize) -> bool {
        self.reopen();
        self.take(byte) != Some(false)
    }

    /// Waits until no other thread or process changes entries, though not for ever.
    pub fn turn(&self) -> Turn<'_> {
        let thread = self.thread();
        let mut taken = false;
        for _ in 0..PATIENCE {
            match self.take(state::TURN) {
                Some(false) => thread::yield_now(),
                answer => {
                    taken = answer.is_some();
                    break;
                }
            }
        }
        Turn { locks: self, taken, _thread: thread }
    }

    fn thread(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The descriptor, if it is still the file's: the program may have closed it and opened another file.
    fn usable(&self) -> Option<RawFd> {
        let descriptor = self.descriptor.load(Ordering::Acquire);
        // SAFETY: zero bytes are a value of this structure of integers.
        let mut found: libc::stat = unsafe { mem::zeroed() };
        // SAFETY: the structure is a local.
        let known = descriptor >= 0 && unsafe { libc::fstat(descriptor, &raw mut found) } == 0;
        (known && (found.st_dev, found.st_ino) == self.file).then_some(descriptor)
    }
}

/// Moves an open file to a high number, and leaves it open.
pub fn keep(file: File) -> RawFd {
    // SAFETY: the descriptor is open.
    let high = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, DESCRIPTORS) };
    // where the process may not have so many: as it is, and the file stays open as well
    if high < 0 { file.into_raw_fd() } else { high }
}

/// One byte of the file.
fn record(byte: usize, kind: libc::c_int) -> libc::flock {
    // SAFETY: zero bytes are a value of this structure of integers.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (byte as libc::off_t, 1);
    lock
}
