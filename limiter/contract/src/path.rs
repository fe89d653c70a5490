//! Paths inside a container.

/// The directory, mounted read-only, that holds [`LIMITS`], [`ALLOWANCE`] and [`OVERHEAD`].
pub const HOST_DIRECTORY: &str = "/etc/kerf";
/// What the container may use: [`crate::limits::Limits`].
pub const LIMITS: &str = "/etc/kerf/limits";
/// How much of its GPUs' time the container may use now: [`crate::allowance`].
pub const ALLOWANCE: &str = "/etc/kerf/allowance";
/// What the driver takes for each process of its own: [`crate::overhead`].
pub const OVERHEAD: &str = "/etc/kerf/overhead";
/// What the container's processes use: [`crate::state`]. The only one of these files that they can write.
pub const STATE: &str = "/run/kerf/state";
/// The limiter's shared library.
pub const LIBRARY: &str = "/usr/lib/kerf/libkerf_limiter.so";
/// The file that makes glibc's loader load [`LIBRARY`] into every program.
pub const PRELOAD: &str = "/etc/ld.so.preload";

/// The content of [`PRELOAD`].
pub fn preload() -> String {
    format!("{LIBRARY}\n")
}
