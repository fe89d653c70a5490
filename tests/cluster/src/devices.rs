//! The `/dev` of a node: a separate directory, so that device files can come and go there and the machine's `/dev`
//! stays unchanged.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// Device files that kubelet, containerd and runc need: name, major and minor.
const STANDARD: [(&str, u32, u32); 7] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    // kubelet looks there for processes that ran out of memory
    ("kmsg", 1, 11),
];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the directory with the standard device files.
///
/// # Errors
/// Where the system refuses.
pub fn make(directory: &Path) -> anyhow::Result<()> {
    for below in ["pts", "shm"] {
        fs::create_dir_all(directory.join(below))?;
    }
    for (name, major, minor) in STANDARD {
        file(&directory.join(name), (major, minor), 0o666)?;
    }
    for (name, target) in LINKS {
        symlink(target, directory.join(name)).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// The commands that mount it as `/dev` of a mount namespace.
pub fn mounts(directory: &Path) -> [String; 3] {
    let directory = directory.display();
    [
        format!("mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts '{directory}/pts'"),
        format!("mount -t tmpfs tmpfs '{directory}/shm'"),
        format!("mount --rbind '{directory}' /dev"),
    ]
}

/// Makes a character device with these numbers, major and minor.
///
/// # Errors
/// Where the system refuses.
pub fn file(path: &Path, (major, minor): (u32, u32), mode: u32) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(mode), makedev(major, minor))
        .with_context(|| path.display().to_string())?;
    // independent of the umask
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
