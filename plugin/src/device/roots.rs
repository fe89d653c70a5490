//! Where the host's file systems are mounted, and bounded reads from them. Every fault names its file.
//!
//! Files of sysfs may be missing, late, of another kernel or plain wrong. A fault is a value that names the file,
//! so that the reason is known when a GPU is left out.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest file that is read, in bytes; a file of sysfs has at most a page.
const MAX_BYTES: u64 = 1 << 16;
/// The most entries that a directory may have: more than a bus has devices.
const MAX_ENTRIES: usize = 1 << 16;

/// Where `/sys`, `/dev` and `/proc` of the host are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    pub sys: PathBuf,
    pub dev: PathBuf,
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), dev: "/dev".into(), proc: "/proc".into() }
    }
}

impl Roots {
    /// The device file `/dev/<name>` as a path on the host, if the host has it. A directory does not count.
    pub fn node(&self, name: &str) -> Option<PathBuf> {
        let there = fs::metadata(self.dev.join(name)).is_ok_and(|metadata| !metadata.is_dir());
        there.then(|| Path::new("/dev").join(name))
    }
}

/// Why a file or directory cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    /// The file or directory does not exist.
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    /// The system refuses, or it is not a regular file.
    #[error("{} cannot be read: {reason}", path.display())]
    Unreadable {
        path: PathBuf,
        /// In the system's words.
        reason: String,
    },
    /// Its content is not what was expected.
    #[error("{} contains {text:?}, expected {expected}", path.display())]
    Malformed {
        path: PathBuf,
        /// The beginning of its content.
        text: String,
        expected: &'static str,
    },
}

impl Fault {
    /// The name in logs and in the report of `doctor`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing-file",
            Self::Unreadable { .. } => "unreadable-file",
            Self::Malformed { .. } => "malformed-file",
        }
    }

    pub(crate) fn malformed(path: &Path, text: &str, expected: &'static str) -> Self {
        Self::Malformed { path: path.to_owned(), text: text.chars().take(32).collect(), expected }
    }

    fn io(path: &Path, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Self::Missing(path.to_owned()),
            _ => Self::Unreadable { path: path.to_owned(), reason: error.to_string() },
        }
    }
}

/// `None` where what was to be read does not exist. Other faults stay.
///
/// # Errors
/// [`Fault`].
pub fn if_there<T>(read: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Fault::Missing(_)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// A file's text without surrounding white space.
///
/// # Errors
/// [`Fault`]; a pipe or a device is never opened.
pub fn text(path: &Path) -> Result<String, Fault> {
    let refused = |error: std::io::Error| Fault::io(path, &error);
    let unreadable = |reason: String| Err(Fault::Unreadable { path: path.to_owned(), reason });
    if !fs::metadata(path).map_err(refused)?.is_file() {
        return unreadable("not a file".to_owned());
    }
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(refused)?;
    if bytes.len() as u64 > MAX_BYTES {
        return unreadable(format!("longer than {MAX_BYTES} bytes"));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(_) => Err(Fault::malformed(path, &String::from_utf8_lossy(&bytes), "text")),
    }
}

/// A file that holds one decimal number.
///
/// # Errors
/// [`Fault`].
pub fn number<T: FromStr>(path: &Path) -> Result<T, Fault> {
    let text = text(path)?;
    text.parse().map_err(|_| Fault::malformed(path, &text, "a number"))
}

/// A file that holds a hexadecimal number with the prefix `0x`, as PCI ids are written.
///
/// # Errors
/// [`Fault`].
pub fn hex(path: &Path) -> Result<u32, Fault> {
    let text = text(path)?;
    let digits = text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    digits.ok_or_else(|| Fault::malformed(path, &text, "0x and hexadecimal digits"))
}

/// The NUMA node in the directory of a device; `None` where the system does not know (`-1`).
///
/// # Errors
/// [`Fault`], also for any other negative number. The GPU then only lacks its NUMA node.
pub fn numa(device: &Path) -> Result<Option<u32>, Fault> {
    let path = device.join("numa_node");
    match number::<i64>(&path)? {
        -1 => Ok(None),
        node @ 0..0x8000 => Ok(u32::try_from(node).ok()),
        node => Err(Fault::malformed(&path, &node.to_string(), "-1 or the number of a NUMA node")),
    }
}

/// The names in a directory, sorted.
///
/// # Errors
/// [`Fault`], also where there are more than can be looked at: of some of them nobody would know which are missing.
pub fn names(path: &Path) -> Result<Vec<String>, Fault> {
    names_up_to(path, MAX_ENTRIES)
}

fn names_up_to(path: &Path, most: usize) -> Result<Vec<String>, Fault> {
    let mut entries = fs::read_dir(path).map_err(|error| Fault::io(path, &error))?;
    let some = entries.by_ref().take(most).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = some.collect();
    if entries.next().is_some() {
        return Err(Fault::Unreadable { path: path.to_owned(), reason: format!("more than {most} entries") });
    }
    names.sort_unstable();
    Ok(names)
}

/// The numbers after `prefix` of the names in a directory, sorted as numbers. Other names are ignored.
///
/// # Errors
/// [`Fault`].
pub fn numbered(path: &Path, prefix: &str) -> Result<Vec<u32>, Fault> {
    let mut numbers: Vec<u32> = names(path)?.iter().filter_map(|name| suffix(name, prefix)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number after `prefix` at the end of a name; `None` for a name of another form.
pub fn suffix(name: &str, prefix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?;
    let plain = digits.bytes().all(|digit| digit.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok()).flatten()
}

/// The last component of a symbolic link's target; `None` where it is not a link.
pub fn target_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

/// Whether text is a PCI address as sysfs spells it: `0000:3b:00.0`. The domain has more than four digits where it needs
/// them, as behind Intel's VMD: `10000:01:00.0`.
pub fn is_address(text: &str) -> bool {
    let form = b":xx:xx.7";
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let fits = |(byte, place): (u8, &u8)| match place {
        b'x' => digit(byte),
        b'7' => matches!(byte, b'0'..=b'7'),
        mark => byte == *mark,
    };
    let split = text.len().checked_sub(form.len()).and_then(|at| text.split_at_checked(at));
    split.is_some_and(|(domain, rest)| {
        let short = domain.len() == 4 || ((5..=8).contains(&domain.len()) && !domain.starts_with('0'));
        short && domain.bytes().all(digit) && rest.bytes().zip(form).all(fits)
    })
}

/// A PCI address as sysfs spells it, of one whose domain may begin with more zeros.
pub fn short_domain(address: &str) -> String {
    let lower = address.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 => format!("{:0>4}:{rest}", domain.trim_start_matches('0')),
        _ => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let code = |path: &Path| number::<u32>(path).unwrap_err().code();
        assert_eq!(number::<u32>(&write("good", b" 17\n")), Ok(17));
        assert_eq!(code(&write("word", b"many")), "malformed-file");
        assert_eq!(code(&write("bytes", b"\xff\xfe")), "malformed-file");
        assert_eq!(code(&write("long", &vec![b'1'; 1 << 17])), "unreadable-file");
        assert_eq!(code(dir.path()), "unreadable-file");
        assert_eq!(code(&dir.path().join("good").join("below")), "missing-file");
        let missing = dir.path().join("none");
        assert_eq!(number::<u32>(&missing).unwrap_err().to_string(), format!("{} is missing", missing.display()));
        assert_eq!(hex(&write("id", b"0x1002\n")), Ok(0x1002));
        assert!(hex(&write("noid", b"1002")).is_err());
    }

    #[test]
    fn a_directory_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(names_up_to(dir.path(), 3).unwrap(), ["a", "b", "c"]);
        assert_eq!(names_up_to(dir.path(), 2).unwrap_err().code(), "unreadable-file");
    }

    #[test]
    fn numa_nodes_are_minus_one_or_small() {
        let dir = tempfile::tempdir().unwrap();
        let numa = |text: &str| {
            fs::write(dir.path().join("numa_node"), text).unwrap();
            numa(dir.path()).map_err(|fault| fault.code())
        };
        assert_eq!(numa("-1"), Ok(None));
        assert_eq!(numa("1\n"), Ok(Some(1)));
        assert_eq!(numa("-2"), Err("malformed-file"));
        assert_eq!(numa("32768"), Err("malformed-file"));
        assert_eq!(numa("x"), Err("malformed-file"));
    }

    #[test]
    fn addresses_are_told_from_other_names() {
        assert!(is_address("0000:3b:00.0"));
        assert!(is_address("0042:01:02.7"));
        assert!(is_address("10000:01:00.0") && is_address("fffffffe:01:00.0"));
        for bad in
            ["", "000:ff:05.1", "0000:3B:00.0", "0000:3b:00.8", "0000:3b:00", "0000:3b:00.0:1", "amdgpu_xcp_1"]
        {
            assert!(!is_address(bad), "{bad}");
        }
        for bad in ["00010:3b:00.0", "123456789:3b:00.0", "1000g:3b:00.0", ":3b:00.0", "é0000:3b:00.0"] {
            assert!(!is_address(bad), "{bad}");
        }
        assert_eq!(short_domain("00010000:3B:00.0"), "10000:3b:00.0");
        assert_eq!(short_domain("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(short_domain("0000:AF:00.0"), "0000:af:00.0");
        assert_eq!(short_domain("nonsense"), "nonsense");
        assert_eq!(suffix("renderD128", "renderD"), Some(128));
        for bad in ["card", "card01", "card-1", "card1x", "card99999999999"] {
            assert_eq!(suffix(bad, "card"), None, "{bad}");
        }
    }
}
