//! Files that others read while they are written: a reader sees the old content or the new one.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::base::exposed;

/// Replaces a file as a whole. `mode` is set whatever the umask is.
///
/// # Errors
/// The system's; an earlier file is then left as it was.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace_with(path, mode, |file| file.write_all(content))
}

/// Like [`replace`], also after the machine has lost power; but leaves a file that already has this content as it is, with
/// its modification time, unless another process holds a lease on it. Returns whether it was written.
///
/// # Errors
/// The system's; an earlier file is then left as it was.
pub fn update(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    if exposed::has(path, content) {
        return Ok(false);
    }
    // file systems may write the name before the content
    replace_with(path, mode, |file| file.write_all(content).and_then(|()| file.sync_all()))?;
    Ok(true)
}

/// Like [`replace`], with content that `write` produces.
///
/// # Errors
/// The system's or that of `write`; an earlier file is then left as it was.
pub fn replace_with(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // readers of directories select names by their ending (CDI), or leave out names that begin with a dot (NFD)
    let unfinished = path.with_file_name(format!(".{name}.new"));
    let mut file = File::create(&unfinished)?;
    write(&mut file)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    fs::rename(&unfinished, path).or_else(|error| {
        // a container runtime leaves an empty directory where it found nothing to mount
        if error.kind() == io::ErrorKind::IsADirectory && fs::remove_dir(path).is_ok() {
            return fs::rename(&unfinished, path);
        }
        Err(error)
    })
}

/// The content of a file of at most `most` bytes. Anything else has no end that is known before: a pipe, a device.
///
/// # Errors
/// The system's, or why this is no such file.
pub fn read_some(path: &Path, most: u64) -> io::Result<String> {
    let refused = |why: String| Err(io::Error::other(why));
    // opening a pipe waits for who writes it, unless it is told not to
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return refused("not a regular file".to_owned());
    }
    let mut text = String::new();
    // its length may be wrong by now, and some file systems do not know it
    file.take(most.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > most { refused(format!("longer than {most} bytes")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        replace(&path, b"one", 0o644).unwrap();
        let open = File::open(&path).unwrap();
        replace(&path, b"two", 0o666).unwrap();
        assert_eq!(io::read_to_string(open).unwrap(), "one");
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("two", 0o666));
        assert!(replace_with(&path, 0o644, |_| Err(io::Error::other("full"))).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        replace(&path, b"three", 0o644).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_empty_directory_makes_room_and_a_full_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let (empty, full) = (directory.path().join("empty"), directory.path().join("full"));
        fs::create_dir(&empty).unwrap();
        fs::create_dir_all(full.join("x")).unwrap();
        replace(&empty, b"x", 0o644).unwrap();
        assert!(empty.is_file());
        assert!(replace(&full, b"x", 0o644).is_err());
    }

    #[test]
    fn what_says_the_same_is_not_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        assert!(update(&path, b"one", 0o644).unwrap());
        let old = std::time::SystemTime::UNIX_EPOCH;
        File::options().append(true).open(&path).unwrap().set_modified(old).unwrap();
        assert!(!update(&path, b"one", 0o644).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
        assert!(update(&path, b"two", 0o644).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    }

    /// Reading a pipe or a device may never end.
    #[test]
    fn only_files_of_limited_length_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let (path, pipe) = (directory.path().join("a"), directory.path().join("pipe"));
        fs::write(&path, "one").unwrap();
        assert_eq!(read_some(&path, 3).unwrap(), "one");
        assert!(read_some(&path, 2).unwrap_err().to_string().contains("longer than 2 bytes"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for other in [pipe.as_path(), Path::new("/dev/zero"), directory.path()] {
            assert!(read_some(other, 3).unwrap_err().to_string().contains("not a regular file"), "{other:?}");
        }
        assert!(read_some(Path::new("/proc/self/status"), 1 << 20).unwrap().starts_with("Name:"));
    }
}
