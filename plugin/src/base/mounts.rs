//! What a process sees at a path, by its table of mounts: `/proc/<pid>/mountinfo` (`proc_pid_mountinfo(5)`). Everybody can
//! read it, while the process's root directory and memory are shown only to who has all its capabilities.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A namespace may have 100,000 mounts (`fs.mount-max`), and every look costs.
const MAX_BYTES: u64 = 4 << 20;

/// The mounts that one process sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    parent: u64,
    device: Number,
    /// What of the file system is mounted.
    root: PathBuf,
    /// Where, below the process's root directory.
    point: PathBuf,
    /// The host has removed or replaced it since.
    replaced: bool,
}

/// Major and minor number of a file system's device.
pub type Number = (u32, u32);

/// Where a file or directory is, whatever the path it is seen at.
#[derive(Clone, Debug)]
pub struct Place {
    pub device: Number,
    /// Within that file system.
    path: PathBuf,
    /// Since the mount was made, the host has removed what was there or put another in its place.
    pub replaced: bool,
}

impl Place {
    pub fn is(&self, other: &Self) -> bool {
        (self.device, &self.path) == (other.device, &other.path)
    }
}

impl Mounts {
    /// Of the process with this directory, `/proc/<pid>` or `/proc/self`.
    ///
    /// # Errors
    /// The system's, such as where the process is gone. A table that is too long is an error of the kind
    /// [`io::ErrorKind::FileTooLarge`].
    pub fn of(process: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        File::open(process.join("mountinfo"))?.take(MAX_BYTES + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Self(String::from_utf8_lossy(&text).lines().filter_map(mount).collect()))
    }

    /// What a look-up of `path` leads to, where no part of it is a symbolic link. `None`: no mount is known that it
    /// is in, as after `chroot(2)`.
    pub fn place(&self, path: &Path) -> Option<Place> {
        let bottom = |mount: &&Mount| {
            let above_another = self.0.iter().any(|other| other.id == mount.parent && other.id != mount.id);
            mount.point == Path::new("/") && !above_another
        };
        let mut at = self.0.iter().find(bottom)?;
        let mut parts: Vec<&Path> = path.ancestors().collect();
        parts.reverse();
        for part in parts {
            // one mount may be on top of another at the same point; a mount whose parent was covered is not on the way
            let mut left = self.0.len();
            while let Some(above) =
                self.0.iter().find(|mount| mount.parent == at.id && mount.id != at.id && mount.point == part)
                && left > 0
            {
                at = above;
                left -= 1;
            }
        }
        let path = at.root.join(path.strip_prefix(&at.point).ok()?);
        Some(Place { device: at.device, path, replaced: at.replaced })
    }
}

/// `36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw`
fn mount(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let mut next = || fields.next();
    let (id, parent) = (next()?.parse().ok()?, next()?.parse().ok()?);
    let (major, minor) = next()?.split_once(':')?;
    let root = plain(next()?);
    let before = root.strip_suffix("//deleted");
    Some(Mount {
        id,
        parent,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root: before.unwrap_or(&root).into(),
        point: plain(next()?).into(),
        replaced: before.is_some(),
    })
}

/// Without the kernel's escapes: space, tab, line feed and backslash are a backslash and three octal digits.
fn plain(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_at_checked(3).map(|(code, rest)| (u8::from_str_radix(code, 8), rest)) {
            Some((Ok(byte), rest)) => {
                plain.push(char::from(byte));
                plain.push_str(rest);
            }
            _ => plain.push_str(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, path: &str) -> Option<(u32, String)> {
        let mounts = Mounts(text.lines().filter_map(mount).collect());
        // without a slash at the end
        let plain = |path: &Path| path.components().collect::<PathBuf>().display().to_string();
        mounts.place(Path::new(path)).map(|place| (place.device.1, plain(&place.path)))
    }

    #[test]
    fn the_topmost_mount_on_the_way_counts() {
        let table = "\
10 1 0:1 / / rw - overlay overlay rw
11 10 8:2 /lib/x/etc /etc/kerf ro - ext4 /dev/a rw
12 10 8:2 /lib/preload//deleted /etc/ld.so.preload ro - ext4 /dev/a rw
13 10 8:3 /a\\040b /with\\040space rw - ext4 /dev/b rw
";
        let place = |minor, path: &str| Some((minor, path.to_owned()));
        assert_eq!(at(table, "/etc/kerf"), place(2, "/lib/x/etc"));
        assert_eq!(at(table, "/etc/kerf/limits"), place(2, "/lib/x/etc/limits"));
        assert_eq!(at(table, "/etc/ld.so.preload"), place(2, "/lib/preload"));
        assert_eq!(at(table, "/with space/c"), place(3, "/a b/c"));
        assert_eq!(at(table, "/etc/passwd"), place(1, "/etc/passwd"));
        let over = format!("{table}14 11 0:9 / /etc/kerf rw - tmpfs tmpfs rw\n");
        assert_eq!(at(&over, "/etc/kerf/limits"), place(9, "/limits"));
        // as a volume at a directory above: the old mount is still in the table, below nothing that can be reached
        let above = format!("{table}14 10 0:9 / /etc rw - tmpfs tmpfs rw\n");
        assert_eq!(at(&above, "/etc/kerf"), place(9, "/kerf"));
        let root = format!("{table}14 10 0:9 / / rw - tmpfs tmpfs rw\n");
        assert_eq!(at(&root, "/etc/kerf"), place(9, "/etc/kerf"));
        assert_eq!(at("", "/etc/kerf"), None);
        let mounts = Mounts(table.lines().filter_map(mount).collect());
        let replaced = |path: &str| mounts.place(Path::new(path)).unwrap().replaced;
        assert!(replaced("/etc/ld.so.preload") && !replaced("/etc/kerf"));
        assert_eq!(at("11 10 8:2 /lib /etc/kerf ro - ext4 /dev/a rw\n", "/etc/kerf"), None);
    }

    #[test]
    fn this_process_has_a_root() {
        let own = Mounts::of(Path::new("/proc/self")).unwrap();
        assert!(own.place(Path::new("/etc/passwd")).unwrap().path.ends_with("etc/passwd"));
        assert!(Mounts::of(Path::new("/proc/0")).is_err());
    }
}
