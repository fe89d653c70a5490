//! The host's files that containers have mounted. A tenant that is root may hold a lease on such a file, also where its
//! mount is read-only (`fcntl(2)`, `F_SETLEASE`): an ordinary open then waits until the tenant gives way or
//! `/proc/sys/fs/lease-break-time`, 45 s by default, has passed. And a file that a tenant can write it can make as long as
//! the file system allows. Here neither stops the host: an open never waits, and a file is cut to its length.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// So much more than its length a file may take of its file system: pages, or huge pages.
const SLACK: u64 = 2 << 20;

/// # Errors
/// The system's; [`io::ErrorKind::WouldBlock`] where another process holds a lease on the file.
pub fn read(path: &Path) -> io::Result<File> {
    open(path, OFlags::RDONLY)
}

/// Opens an existing file to change it in place.
///
/// # Errors
/// As [`read`].
pub fn write(path: &Path) -> io::Result<File> {
    open(path, OFlags::WRONLY)
}

/// Whether a file has this content, and nobody holds it.
pub fn has(path: &Path, content: &[u8]) -> bool {
    let mut found = Vec::new();
    let opened = read(path).and_then(|file| file.take(content.len() as u64 + 1).read_to_end(&mut found));
    opened.is_ok() && found == content
}

fn open(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Cuts a file to `length` where it takes more of its file system. Returns whether it did.
///
/// # Errors
/// As [`read`].
pub fn cut(path: &Path, length: u64) -> io::Result<bool> {
    let found = read(path)?.metadata()?;
    // blocks can be reserved behind the end: `fallocate(2)`, FALLOC_FL_KEEP_SIZE
    let taken = found.len().max(found.blocks().saturating_mul(512));
    if found.len() <= length && taken <= length.saturating_add(SLACK) {
        return Ok(false);
    }
    // also where the length stays: what is reserved behind the end is given back
    write(path)?.set_len(length.min(found.len()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_is_too_long_is_cut_and_others_are_left() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("a"), directory.path().join("link"));
        fs::write(&path, [7; 100]).unwrap();
        assert!(!cut(&path, 100).unwrap());
        assert!(!cut(&path, 200).unwrap(), "who shortens it harms itself");
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 30).unwrap();
        assert!(cut(&path, 100).unwrap());
        assert!(has(&path, &[7; 100]) && !has(&path, &[7; 99]) && !has(&path, &[7; 101]));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(read(&link).is_err() && write(&link).is_err() && cut(&link, 1).is_err());
    }

    /// Opening a pipe that nobody writes would never end.
    #[test]
    fn an_open_never_waits() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(read(&pipe).is_ok());
        assert!(write(&pipe).is_err() && !has(&pipe, b"x"));
    }
}
