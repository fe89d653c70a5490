//! The three files of the contract, as this process uses them. Each error names its file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use kerf_limiter_contract::limits::{self, Limits, LimitsError};
use kerf_limiter_contract::state::{self, State};
use kerf_limiter_contract::{allowance, path};

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

/// Maps the state file for as long as this process lives; with the file's inode.
pub fn state() -> Result<(&'static State, u64), Unusable> {
    let about = |error: io::Error| Unusable::Io(path::STATE, error);
    let file = File::options().read(true).write(true).open(path::STATE).map_err(about)?;
    let metadata = file.metadata().map_err(about)?;
    let state = map_state(&file, metadata.len())?;
    Ok((state, metadata.ino()))
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
    let file = File::open(path::ALLOWANCE).ok()?;
    if file.metadata().ok()?.len() != allowance::BYTES as u64 {
        return None;
    }
    // SAFETY: a new mapping of a file of that length, which is never unmapped.
    let address = unsafe {
        libc::mmap(ptr::null_mut(), allowance::BYTES, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: page-aligned, that long, and atomic integers take any bytes. It is never written through this reference;
    // the file belongs to the host, which does not shorten it.
    let words = unsafe { std::slice::from_raw_parts(address.cast::<AtomicU64>(), allowance::BYTES / 8) };
    let (magic, entries) = words.split_first()?;
    (magic.load(Ordering::Relaxed) == allowance::MAGIC).then_some(entries)
}
