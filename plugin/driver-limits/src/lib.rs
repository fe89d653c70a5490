//! NVIDIA's memory limits for control groups: two functions of the management library (NVML) that drivers from 615 on
//! have, and that `nvml-wrapper` does not know yet. A package of its own because it calls C; all else forbids that.
//!
//! What follows NVIDIA's documentation (NVML API reference, `nvmlDeviceSetMemoryLimits_v1`,
//! `nvmlSetMemoryLimits_v1_t`): the group is named by its full path in sysfs; a soft limit of 0 and a hard one of
//! [`UNLIMITED`] are none; setting needs root; handles of MIG instances are refused; a group that is removed takes its
//! limits with it. Only hard limits are set here: a soft one that outlives its group stays reserved.
//!
//! Not tried with such a driver: there was none.

use std::ffi::{CString, OsStr, c_char, c_int, c_ulonglong, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use libloading::Library;

/// No limit.
pub const UNLIMITED: u64 = u64::MAX;
const LIBRARY: &str = "libnvidia-ml.so.1";
const SUCCESS: c_int = 0;

type Device = *mut c_void;

#[repr(C)]
struct SetLimits {
    name_space: *const c_char,
    soft: c_ulonglong,
    hard: c_ulonglong,
}

#[repr(C)]
struct GetLimits {
    name_space: *const c_char,
    soft: c_ulonglong,
    hard: c_ulonglong,
    used: c_ulonglong,
}

type Init = unsafe extern "C" fn() -> c_int;
type ByUuid = unsafe extern "C" fn(*const c_char, *mut Device) -> c_int;
type Set = unsafe extern "C" fn(Device, *mut SetLimits) -> c_int;
type Get = unsafe extern "C" fn(Device, *mut GetLimits) -> c_int;

/// Why there is no limit.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// No management library.
    #[error("{0}")]
    NoLibrary(libloading::Error),
    /// The library has no such function: the driver is older than 615.
    #[error("the driver has no memory limits for control groups (driver 615 and later do): {0}")]
    NoFunction(libloading::Error),
    /// A uuid or path with a zero byte in it.
    #[error("{0:?} has a zero byte in it")]
    Name(String),
    /// The driver refused.
    #[error("{call} failed with NVML's error {code}")]
    Refused {
        /// The function.
        call: &'static str,
        /// NVML's `nvmlReturn_t`.
        code: i32,
    },
}

/// The limits of one control group on one card, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At least so much is there for the group.
    pub soft: u64,
    /// More than this is refused; [`UNLIMITED`] where nothing is set.
    pub hard: u64,
    /// In use now.
    pub used: u64,
}

/// The driver's functions. Clones share the library, which stays loaded with the last of them.
#[derive(Clone, Debug)]
pub struct DriverLimits {
    by_uuid: ByUuid,
    set: Set,
    get: Get,
    _library: Arc<Library>,
}

fn refused(call: &'static str, code: c_int) -> Result<(), LimitError> {
    if code == SUCCESS { Ok(()) } else { Err(LimitError::Refused { call, code }) }
}

fn name(text: &OsStr) -> Result<CString, LimitError> {
    CString::new(text.as_bytes()).map_err(|_| LimitError::Name(text.to_string_lossy().into_owned()))
}

impl DriverLimits {
    /// Loads the library (as the loader finds it, unless named) and its functions.
    ///
    /// # Errors
    /// [`LimitError`]; a driver without these functions is [`LimitError::NoFunction`].
    pub fn load(library: Option<&Path>) -> Result<Self, LimitError> {
        let library = library.map_or(OsStr::new(LIBRARY), Path::as_os_str);
        // SAFETY: the library is NVIDIA's, named by the administrator; its initializers are meant to be run.
        let library = unsafe { Library::new(library) }.map_err(LimitError::NoLibrary)?;
        // SAFETY: the types are those of NVML's documentation for functions of these names, and the pointers are
        // used only while `_library` keeps the code loaded.
        let (init, by_uuid, set, get) = unsafe {
            let get = *library.get::<Get>(b"nvmlDeviceGetMemoryLimits_v1\0").map_err(LimitError::NoFunction)?;
            let set = *library.get::<Set>(b"nvmlDeviceSetMemoryLimits_v1\0").map_err(LimitError::NoFunction)?;
            let init = *library.get::<Init>(b"nvmlInit_v2\0").map_err(LimitError::NoLibrary)?;
            let by_uuid = *library.get::<ByUuid>(b"nvmlDeviceGetHandleByUUID\0").map_err(LimitError::NoLibrary)?;
            (init, by_uuid, set, get)
        };
        // SAFETY: takes no argument, may be called from any thread and any number of times. It is not undone: other
        // users of the library in this process count on theirs.
        refused("nvmlInit_v2", unsafe { init() })?;
        Ok(Self { by_uuid, set, get, _library: Arc::new(library) })
    }

    fn device(&self, uuid: &str) -> Result<Device, LimitError> {
        let uuid = name(OsStr::new(uuid))?;
        let mut device: Device = std::ptr::null_mut();
        // SAFETY: a string that ends with zero and lives through the call, and a place for the handle.
        refused("nvmlDeviceGetHandleByUUID", unsafe { (self.by_uuid)(uuid.as_ptr(), &raw mut device) })?;
        Ok(device)
    }

    /// Limits the memory of the card `uuid` that processes of `group` hold together; [`UNLIMITED`] lifts it. `group` is
    /// the directory of a control group below `/sys/fs/cgroup`, as the driver sees it.
    ///
    /// # Errors
    /// [`LimitError`]
    pub fn set(&self, uuid: &str, group: &Path, bytes: u64) -> Result<(), LimitError> {
        let (device, path) = (self.device(uuid)?, name(group.as_os_str())?);
        let mut limits = SetLimits { name_space: path.as_ptr(), soft: 0, hard: bytes };
        // SAFETY: a handle of this library, and a structure as documented whose string lives through the call.
        refused("nvmlDeviceSetMemoryLimits_v1", unsafe { (self.set)(device, &raw mut limits) })
    }

    /// What holds for `group` on the card `uuid`.
    ///
    /// # Errors
    /// [`LimitError`]
    pub fn get(&self, uuid: &str, group: &Path) -> Result<Limits, LimitError> {
        let (device, path) = (self.device(uuid)?, name(group.as_os_str())?);
        let mut limits = GetLimits { name_space: path.as_ptr(), soft: 0, hard: 0, used: 0 };
        // SAFETY: as for setting; the driver writes into the structure.
        refused("nvmlDeviceGetMemoryLimits_v1", unsafe { (self.get)(device, &raw mut limits) })?;
        Ok(Limits { soft: limits.soft, hard: limits.hard, used: limits.used })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_and_a_missing_function_are_told_apart() {
        let none = DriverLimits::load(Some(Path::new("/nonexistent/libnvidia-ml.so.1")));
        assert!(matches!(none, Err(LimitError::NoLibrary(_))));
        // any library will do that is no management library
        let other = DriverLimits::load(Some(Path::new("libc.so.6")));
        assert!(matches!(other, Err(LimitError::NoFunction(_))), "{other:?}");
    }
}
