//! The feature file of Node Feature Discovery (NFD). NFD's worker reads every file of its directory about once a
//! minute, and its master writes the labels.
//!
//! The format is that of NFD's customization guide: lines of `<namespace>/<name>=<value>`, at most 64 KiB; files
//! whose names begin with a dot are not read; and the lines after `# +expiry-time=<RFC 3339>` expire at that time.
//! NFD takes every namespace but `kubernetes.io`, unless configured otherwise (`denyLabelNs`, `extraLabelNs`), and
//! no label without one. So the gates are not in the file, and NFD's own rules write Intel's labels.
//!
//! On a clean end the file stays with an expiry time: an update of the plugin removes no labels, even for a moment,
//! and its removal does so for good.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use k8s_openapi::jiff::Timestamp;

use crate::base::files;
use crate::publish::labels::wanted::Wanted;

/// NFD reads no longer files.
const MAX_BYTES: usize = 64 << 10;

/// Writes the wanted labels, which expire at `until` if it is given. The file's name must not begin with a dot.
///
/// # Errors
/// The system's; an earlier file is then left as it was. A missing directory is not created: without it no NFD
/// runs here.
pub fn write(path: &Path, wanted: &Wanted, until: Option<Timestamp>) -> io::Result<()> {
    files::update(path, text(wanted, until).as_bytes(), 0o644).map(drop)
}

/// Removes the file, if it exists.
///
/// # Errors
/// The system's; a missing file is not an error.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn text(wanted: &Wanted, until: Option<Timestamp>) -> String {
    let mut text = "# written by kerf-plugin\n".to_owned();
    if let Some(until) = until.and_then(|until| Timestamp::from_second(until.as_second()).ok()) {
        let _ = writeln!(text, "# +expiry-time={until}");
    }
    for (key, value) in wanted.vendors.values().flat_map(|labels| labels.iter()) {
        if text.len() + key.len() + value.len() + 2 > MAX_BYTES {
            break;
        }
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::backend::Vendor;
    use crate::device::label::Labels;

    #[test]
    fn a_file_is_whole_readable_by_all_and_in_nfds_form() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kerf-amd");
        let mut wanted = Wanted::default();
        let mut labels = Labels::default();
        labels.set("amd.com/gpu.vram", "16G");
        wanted.vendors.insert(Vendor::Amd, labels);
        wanted.gates.set("nvidia-device-enable", "enable");
        write(&path, &wanted, None).unwrap();
        let plain = "# written by kerf-plugin\namd.com/gpu.vram=16G\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), plain);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        write(&path, &wanted, Some(Timestamp::from_second(1_700_000_000).unwrap())).unwrap();
        let expiring = "# written by kerf-plugin\n# +expiry-time=2023-11-14T22:13:20Z\namd.com/gpu.vram=16G\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expiring);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        let nowhere = dir.path().join("none/kerf");
        assert_eq!(write(&nowhere, &wanted, None).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
