//! Whether a container's loader can use a file of the host's. Where it cannot read or map the limiter's library, it says so
//! and starts the program all the same, without limits; so that is found out before a container is given it.

use std::fs;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, XattrFlags, getxattr, setxattr, statvfs};
use rustix::io::Errno;

use crate::isolation::demand::{IsolationError, at};

const ATTRIBUTE: &str = "security.selinux";
/// The type of files that containers may read and write, and none of the categories that separate containers.
const TYPE: &str = "container_file_t";
const LABEL: &[u8] = b"system_u:object_r:container_file_t:s0\0";

/// Whether this host's kernel uses SELinux.
pub fn selinux() -> bool {
    // user:role:type:range; other security modules write other texts there
    let own = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    own.split(':').nth(2).is_some_and(|kind| kind.ends_with("_t"))
}

/// Lets the programs of containers read a file or directory of this process', where the host uses SELinux.
///
/// # Errors
/// [`IsolationError`]: it has another label, which cannot be changed.
pub fn label(path: &Path) -> Result<(), IsolationError> {
    if selinux() { relabel(path) } else { Ok(()) }
}

fn relabel(path: &Path) -> Result<(), IsolationError> {
    if is_labelled(path).map_err(at(path))? {
        return Ok(());
    }
    setxattr(path, ATTRIBUTE, LABEL, XattrFlags::empty()).map_err(|error| match error {
        Errno::PERM | Errno::ACCESS => {
            let why = "SELinux keeps containers from reading it, and this process from changing that";
            IsolationError::Unusable { path: path.to_owned(), why }
        }
        error => at(path)(error.into()),
    })
}

/// Whether the label lets containers read the file.
fn is_labelled(path: &Path) -> std::io::Result<bool> {
    // longer than any label
    let mut label = [0; 4096];
    match getxattr(path, ATTRIBUTE, &mut label[..]) {
        Ok(length) => Ok(String::from_utf8_lossy(&label[..length]).split(':').nth(2) == Some(TYPE)),
        Err(Errno::NODATA) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// # Errors
/// [`IsolationError::Unusable`]: nothing in this directory can be loaded as a program or library.
pub fn executable(directory: &Path) -> Result<(), IsolationError> {
    let mount = statvfs(directory).map_err(|error| at(directory)(error.into()))?;
    if mount.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        let why = "it is on a file system that is mounted noexec, so containers cannot load a library from it";
        return Err(IsolationError::Unusable { path: directory.to_owned(), why });
    }
    Ok(())
}

/// # Errors
/// [`IsolationError::Unusable`]: this host's SELinux keeps containers from reading the file.
pub fn readable(path: &Path) -> Result<(), IsolationError> {
    if selinux() && !is_labelled(path).map_err(at(path))? {
        let why = "SELinux keeps containers from reading it: its type is not container_file_t";
        return Err(IsolationError::Unusable { path: path.to_owned(), why });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel would label it; `None` where this machine does not let tests do so.
    fn labelled(label: &[u8]) -> Option<tempfile::NamedTempFile> {
        let file = tempfile::NamedTempFile::new().unwrap();
        if let Err(error) = setxattr(file.path(), ATTRIBUTE, label, XattrFlags::empty()) {
            println!("NOT RUN: a test may not set SELinux's labels here: {error}");
            return None;
        }
        Some(file)
    }

    #[test]
    fn a_file_gets_the_label_that_containers_may_read() {
        let Some(file) = labelled(b"system_u:object_r:var_lib_t:s0\0") else { return };
        assert!(!is_labelled(file.path()).unwrap());
        relabel(file.path()).unwrap();
        assert!(is_labelled(file.path()).unwrap());
        let mut label = [0; 64];
        assert_eq!(getxattr(file.path(), ATTRIBUTE, &mut label[..]).unwrap(), LABEL.len());
        assert_eq!(&label[..LABEL.len()], LABEL);
    }

    #[test]
    fn a_label_of_that_type_stays_as_the_administrator_set_it() {
        let own = b"unconfined_u:object_r:container_file_t:s0:c1,c2\0";
        let Some(file) = labelled(own) else { return };
        relabel(file.path()).unwrap();
        let mut label = [0; 64];
        assert_eq!(getxattr(file.path(), ATTRIBUTE, &mut label[..]).unwrap(), own.len());
    }
}
