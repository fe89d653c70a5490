//! Which of the limiter's functions a program gets for a name of a driver's function.

use std::ffi::{CStr, CString, c_int, c_void};

use kerf_limiter_contract::state::Flags;

use crate::library::{self, Function};
use crate::message::{self, Topic};
use crate::process;

/// One of the driver's functions that the limiter replaces.
pub struct Entry {
    /// The limiter's function.
    pub hook: *mut c_void,
    pub driver: &'static Function,
    /// The version of CUDA that introduced it, as `cuGetProcAddress` counts.
    pub since: c_int,
}

// SAFETY: the pointer is the address of a function, which never changes.
unsafe impl Sync for Entry {}

/// The entry for a driver's function, by its exported name.
pub fn find(entries: &'static [Entry], name: &CStr) -> Option<&'static Entry> {
    entries.iter().find(|e| e.driver.name() == name)
}

/// The function that a program gets where the driver has returned `found` for `symbol`, a name without a version: the
/// limiter's replacement of exactly that function.
pub fn instead_of(
    entries: &'static [Entry],
    symbol: &CStr,
    found: *mut c_void,
    version: c_int,
    per_thread: bool,
) -> *mut c_void {
    let mut family = entries.iter().filter(|e| base(e.driver.name()) == symbol.to_bytes()).peekable();
    if family.peek().is_none() {
        // of another family: the driver answers some names with a function of another name
        return named(entries, found).map_or(found, |e| e.hook);
    }
    let mut best: Option<&Entry> = None;
    for entry in family {
        if entry.driver.address() == found {
            return entry.hook;
        }
        let name = entry.driver.name().to_bytes();
        let threads = name.ends_with(b"_ptsz") || name.ends_with(b"_ptds");
        // the newest that the requested version had; of a pair, the one for the requested default stream
        let fits = entry.since <= version && (!threads || per_thread);
        if fits && best.is_none_or(|b| (b.since, false) <= (entry.since, threads)) {
            best = Some(entry);
        }
    }
    if let Some(entry) = named(entries, found) {
        return entry.hook;
    }
    // a driver that returns other addresses than the loader is known by version alone; a driver with a later version of
    // the function is not known at all
    let later = (2..=9).any(|n| {
        let name = [symbol.to_bytes(), format!("_v{n}").as_bytes()].concat();
        let exported = |suffix: &[u8]| {
            let name = CString::new([&name[..], suffix].concat()).unwrap_or_default();
            library::in_cuda(&name) == found && find(entries, &name).is_none()
        };
        exported(b"") || exported(b"_ptsz") || exported(b"_ptds")
    });
    match best {
        Some(entry) if !later => {
            entry.driver.learn(found);
            entry.hook
        }
        _ => {
            if let Ok(process) = process::current() {
                process.cards.flag(Flags::UNKNOWN_VERSION);
            }
            message::once(
                Topic::Version,
                format_args!("the driver has a version of {symbol:?} that is not known and not limited"),
            );
            found
        }
    }
}

/// The entry whose function the driver has at this address. The management library's are not asked for, which would load it.
fn named(entries: &'static [Entry], found: *mut c_void) -> Option<&'static Entry> {
    entries.iter().find(|e| e.driver.is_of_cuda() && e.driver.address() == found)
}

/// An exported name without its version and stream suffixes, as `cuGetProcAddress` takes it.
fn base(name: &CStr) -> &[u8] {
    let name = name.to_bytes();
    let name = name.strip_suffix(b"_ptsz").or(name.strip_suffix(b"_ptds")).unwrap_or(name);
    match name {
        [rest @ .., b'_', b'v', digit] if digit.is_ascii_digit() => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_without_their_suffixes() {
        assert_eq!(base(c"cuMemAlloc_v2"), b"cuMemAlloc");
        assert_eq!(base(c"cuStreamBeginCapture_v2_ptsz"), b"cuStreamBeginCapture");
        assert_eq!(base(c"cuInit"), b"cuInit");
    }
}
