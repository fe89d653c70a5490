//! The three files of the contract, as this process uses them. Each error names its file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use kerf_limiter_contract::limits::{self, Limits, LimitsError};
use kerf_limiter_contract::state::{self, State};
use kerf_limiter_contract::{allowance, overhead, path};

use crate::memory::locks;

/// Why this process cannot be held to limits.
pub enum Unusable {
    Io(&'static str, io::Error),
    Limits(LimitsError),
    /// The state file has this wrong length.
    Length(u64),
    /// The state file does not begin with the right bytes.
    Magic,
    /// The state file has this unknown version.
    Version(u32),
    /// `/proc` does not tell when this process started.
    NoStartTime,
    /// The state file has no free entry.
    Full,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = path::STATE;
        match self {
            Self::Io(path, error) => write!(f, "{path}: {error}"),
            Self::Limits(error) => write!(f, "{}: {error}", path::LIMITS),
            Self::Length(length) => write!(f, "{state}: {length} bytes long, expected {}", state::BYTES),
            Self::Magic => write!(f, "{state}: does not begin as a state file does"),
            Self::Version(found) => write!(f, "{state}: version {found}, expected {}", state::VERSION),
            Self::NoStartTime => f.write_str("/proc does not tell this process' start time"),
            Self::Full => write!(f, "{state}: {} processes use GPUs already", state::MAX_PROCESSES),
        }
    }
}

/// Reads the container's limits.
pub fn limits() -> Result<Limits, Unusable> {
    let mut text = Vec::new();
    File::open(path::LIMITS)
        .and_then(|file| file.take(limits::MAX_BYTES as u64 + 1).read_to_end(&mut text))
        .map_err(|error| Unusable::Io(path::LIMITS, error))?;
    Limits::parse(&text).map_err(Unusable::Limits)
}

/// The state file, mapped and open.
pub struct Mapped {
    pub state: &'static State,
    /// Never closed: that would end this process' record locks on the file.
    pub descriptor: RawFd,
    /// Device and inode.
    pub file: (u64, u64),
}

/// The state file, mapped at the first call for as long as this process lives; its children have it as well.
pub fn state() -> Result<&'static Mapped, Unusable> {
    static MAPPED: AtomicPtr<Mapped> = AtomicPtr::new(ptr::null_mut());
    let known = MAPPED.load(Ordering::Acquire);
    if !known.is_null() {
        // SAFETY: it is only ever set to a leaked `Mapped`.
        return Ok(unsafe { &*known });
    }
    let about = |error: io::Error| Unusable::Io(path::STATE, error);
    let file = File::options().read(true).write(true).open(path::STATE).map_err(about)?;
    let metadata = file.metadata().map_err(about)?;
    let state = map_state(&file, metadata.len())?;
    let mapped = Mapped { state, descriptor: locks::keep(file), file: (metadata.dev(), metadata.ino()) };
    let mapped = Box::into_raw(Box::new(mapped));
    // of two threads, one has the mapping that stays, and what the other has opened stays open
    let first = MAPPED.compare_exchange(ptr::null_mut(), mapped, Ordering::AcqRel, Ordering::Acquire);
    // SAFETY: both are leaked.
    Ok(unsafe { &*first.map_or_else(|first| first, |_| mapped) })
}

fn map_state(file: &File, length: u64) -> Result<&'static State, Unusable> {
    if length != state::BYTES as u64 {
        return Err(Unusable::Length(length));
    }
    // SAFETY: a new mapping of a file of that length, which is never unmapped.
    let address = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(ptr::null_mut(), state::BYTES, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if address == libc::MAP_FAILED {
        return Err(Unusable::Io(path::STATE, io::Error::last_os_error()));
    }
    // SAFETY: page-aligned, as long as `State`, and all of `State` is atomic integers, for which any bytes are a value,
    // also while other processes write them. Where the tenant shortens the file, the process gets SIGBUS.
    let state = unsafe { &*address.cast::<State>() };
    if state.header.magic.load(Ordering::Relaxed) != state::MAGIC {
        return Err(Unusable::Magic);
    }
    match state.header.version.load(Ordering::Relaxed) {
        state::VERSION => Ok(state),
        found => Err(Unusable::Version(found)),
    }
}

/// Maps the allowance, which the host writes while the process runs; `None` where there is no such file.
pub fn allowance() -> Option<&'static [AtomicU64]> {
    words(path::ALLOWANCE, allowance::BYTES, allowance::MAGIC)?.get(1..)
}

/// Maps what the host has measured of the driver's memory; `None` where there is no such file.
pub fn overhead() -> Option<&'static [AtomicU64]> {
    words(path::OVERHEAD, overhead::BYTES, overhead::MAGIC)
}

/// Maps a file of the host with this length and beginning.
fn words(path: &str, length: usize, magic: u64) -> Option<&'static [AtomicU64]> {
    let file = File::open(path).ok()?;
    if file.metadata().ok()?.len() != length as u64 {
        return None;
    }
    // SAFETY: a new mapping of a file of that length, which is never unmapped.
    let address =
        unsafe { libc::mmap(ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: page-aligned, that long, and atomic integers take any bytes. It is never written through this reference;
    // the file belongs to the host, which does not shorten it.
    let words = unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), length / 8) };
    (words.first()?.load(Ordering::Relaxed) == magic).then_some(words)
}
