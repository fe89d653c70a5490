//! Whether a process finds at the limiter's places what its container was given there, and has the library loaded. A pod's
//! own volumes lie on top of what the device plugin gives, and a process in the container may mount over it, rename what
//! is above it, or have another root directory; it may also go without the library while all is in place.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kerf_limiter_contract::path;

use crate::base::mounts::{Mounts, Number, Place};
use crate::isolation::folder::Folder;
use crate::isolation::limiter;

const PLACES: [&str; 4] = [path::HOST_DIRECTORY, path::STATE, path::LIBRARY, path::PRELOAD];
/// A process may map 65,530 areas (`vm.max_map_count`), each with a path.
const MAX_BYTES: u64 = 16 << 20;

/// What the host's view says of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InPlace {
    /// The places where it finds something else.
    pub hidden: Vec<&'static str>,
    /// Whether it has mapped the library. `None`: its memory map cannot be read.
    pub mapped: Option<bool>,
}

/// Looks at the process with this directory, `/proc/<pid>`; `own` are this process's mounts. `None`: it is gone.
pub fn look(folder: &Folder, own: &Mounts, process: &Path) -> Option<InPlace> {
    let seen = match Mounts::of(process) {
        Ok(seen) => seen,
        // who has so many mounts hides something
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Mounts::default(),
        Err(_) => return None,
    };
    let mut found = InPlace::default();
    for place in PLACES {
        let given = limiter::given(folder, place);
        let given: Vec<Place> = given.iter().filter_map(|file| on_host(own, file)).collect();
        let right = seen.place(Path::new(place)).filter(|seen| given.iter().any(|given| given.is(seen)));
        match (place, right) {
            (path::LIBRARY, Some(library)) => {
                // a process that was there before has loaded what was there
                found.mapped = maps(folder, own, process, &library).filter(|mapped| *mapped || !library.replaced);
            }
            (_, Some(_)) => {}
            (_, None) => found.hidden.push(place),
        }
    }
    Some(found)
}

fn on_host(own: &Mounts, file: &Path) -> Option<Place> {
    // what is lost was at its own path
    own.place(&std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()))
}

fn maps(folder: &Folder, own: &Mounts, process: &Path, library: &Place) -> Option<bool> {
    let files = limiter::given(folder, path::LIBRARY);
    let file = files.iter().find(|file| on_host(own, file).is_some_and(|place| place.is(library)))?;
    let inode = std::fs::metadata(file).ok()?.ino();
    let mut text = BufReader::new(File::open(process.join("maps")).ok()?.take(MAX_BYTES));
    let mut line = Vec::new();
    while text.read_until(b'\n', &mut line).ok()? > 0 {
        if executable(&String::from_utf8_lossy(&line)) == Some((library.device, inode)) {
            return Some(true);
        }
        line.clear();
    }
    Some(false)
}

/// The file that a line of `maps` has as code: `7f5c8000-7f5c9000 r-xp 00000000 08:02 4711   /path`.
fn executable(line: &str) -> Option<(Number, u64)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    if !fields.next()?.contains('x') {
        return None;
    }
    let (major, minor) = fields.nth(1)?.split_once(':')?;
    let device = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    Some((device, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_is_found_in_memory_maps() {
        let line = "7f5c80000000-7f5c80001000 r-xp 00000000 fd:1a 4711                       /usr/lib/a b.so\n";
        assert_eq!(executable(line), Some(((0xfd, 0x1a), 4711)));
        assert_eq!(executable(&line.replace("r-xp", "r--p")), None);
        assert_eq!(
            executable("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]"),
            Some(((0, 0), 0))
        );
        assert_eq!(executable(""), None);
    }
}
