//! Why NVIDIA's library is missing where its driver is not.

use nvml_wrapper::error::NvmlError;

use crate::device::roots::Roots;

/// A device file that the host has once the driver is loaded.
const DRIVER: &str = "nvidiactl";

/// Whether there is no library, or none that can be loaded.
pub(super) fn is_missing(error: &NvmlError) -> bool {
    matches!(error, NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound)
}

/// What the driver's error means for this process, in words that name what to change; the error's own where there is no more to
/// say. A host with the driver and a container without its library is a matter of the container runtime's, which gives the
/// library to containers that ask for GPUs in a way that it believes.
pub(super) fn explained(error: &NvmlError, roots: &Roots) -> String {
    if !is_missing(error) || roots.node(DRIVER).is_none() {
        return error.to_string();
    }
    format!(
        "{error}. The host has the driver ({}), so NVIDIA's container runtime gave this container neither library nor GPUs. \
         Either the pod does not run under it: name its RuntimeClass (plugin.runtimeClassName, overlays/nvidia-runtime). Or it \
         refuses containers without privileges: set accept-nvidia-visible-devices-as-volume-mounts = true in its config.toml. \
         Or name the library with --nvml-library",
        roots.dev.join(DRIVER).display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[&str]) -> (tempfile::TempDir, Roots) {
        let dev = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::write(dev.path().join(file), "").unwrap();
        }
        let roots = Roots { dev: dev.path().to_owned(), ..Roots::default() };
        (dev, roots)
    }

    #[test]
    fn a_library_that_the_runtime_withholds_is_told_with_what_to_change() {
        let (_dev, roots) = host(&[DRIVER]);
        let said = explained(&NvmlError::LibraryNotFound, &roots);
        for part in
            ["couldn't be found", "nvidiactl", "runtimeClassName", "as-volume-mounts = true", "--nvml-library"]
        {
            assert!(said.contains(part), "no {part:?} in: {said}");
        }
    }

    #[test]
    fn other_errors_and_hosts_without_the_driver_have_the_librarys_words() {
        let (_dev, bare) = host(&[]);
        assert_eq!(explained(&NvmlError::LibraryNotFound, &bare), NvmlError::LibraryNotFound.to_string());
        let (_dev, roots) = host(&[DRIVER]);
        assert_eq!(explained(&NvmlError::DriverNotLoaded, &roots), NvmlError::DriverNotLoaded.to_string());
    }
}
