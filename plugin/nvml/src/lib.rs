//! The functions of NVIDIA's management library (NVML) that `nvml-wrapper` lacks: the ids of MIG instances, memory and
//! processes as drivers before 510 tell them, and the memory limits for control groups of drivers from 615 on. A
//! package of its own because it calls C, which all others forbid.
//!
//! The limits follow NVIDIA's documentation (NVML API reference, `nvmlDeviceSetMemoryLimits_v1`,
//! `nvmlSetMemoryLimits_v1_t`): the group is named by its full path in sysfs; a soft limit of 0 and a hard one of
//! [`UNLIMITED`] mean no limit; setting needs root; handles of MIG instances are refused; a group that is removed
//! takes its limits with it. Only hard limits are set here: a soft one that outlives its group stays reserved.
//!
//! Not tested with such a driver, for lack of one.

use std::ffi::{CString, OsStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use libloading::Library;

/// The value of a hard limit that is not set.
pub const UNLIMITED: u64 = u64::MAX;
const LIBRARY: &str = "libnvidia-ml.so.1";
const SUCCESS: c_int = 0;
const INSUFFICIENT_SIZE: c_int = 7;
/// More processes than use one GPU.
const MAX_PROCESSES: c_uint = 4096;
/// Processes that may begin between the question how many there are and that which.
const HEADROOM: c_uint = 8;
/// `NVML_VALUE_NOT_AVAILABLE`: the driver does not know the amount.
const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;

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

/// `nvmlMemory_t`.
#[repr(C)]
#[derive(Default)]
struct MemoryInfo {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlProcessInfo_v1_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Process1 {
    pid: c_uint,
    used: c_ulonglong,
}

/// `nvmlProcessInfo_v2_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Process2 {
    first: Process1,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

impl From<Process2> for Process1 {
    fn from(process: Process2) -> Self {
        process.first
    }
}

type Init = unsafe extern "C" fn() -> c_int;
type ByUuid = unsafe extern "C" fn(*const c_char, *mut Device) -> c_int;
type Id = unsafe extern "C" fn(Device, *mut c_uint) -> c_int;
type GetMemory = unsafe extern "C" fn(Device, *mut MemoryInfo) -> c_int;
type GetProcesses<P> = unsafe extern "C" fn(Device, *mut c_uint, *mut P) -> c_int;
type Set = unsafe extern "C" fn(Device, *mut SetLimits) -> c_int;
type Get = unsafe extern "C" fn(Device, *mut GetLimits) -> c_int;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum NvmlError {
    /// The management library cannot be loaded.
    #[error("{0}")]
    NoLibrary(libloading::Error),
    /// The library does not have this function: the driver is older.
    #[error("the driver is too old: {0}")]
    NoFunction(libloading::Error),
    /// A uuid or path with a zero byte in it.
    #[error("{0:?} contains a NUL byte")]
    Name(String),
    /// The driver refused the call.
    #[error("{call} failed with NVML's error {code}")]
    Refused {
        /// The name of the C function.
        call: &'static str,
        /// NVML's `nvmlReturn_t`.
        code: i32,
    },
}

/// The memory of a GPU, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it, with what the driver keeps for itself.
    pub total: u64,
    /// What is in use, with what the driver keeps for itself.
    pub used: u64,
}

/// The limits of one control group on one GPU, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At least this much is reserved for the group.
    pub soft: u64,
    /// Allocations beyond this fail; [`UNLIMITED`] where nothing is set.
    pub hard: u64,
    /// What the group's processes use now.
    pub used: u64,
}

/// The loaded library. Clones share it; it is unloaded with the last of them.
#[derive(Clone, Debug)]
pub struct Nvml {
    by_uuid: ByUuid,
    library: Arc<Library>,
}

/// The functions for limits.
#[derive(Clone, Debug)]
pub struct MemoryLimits {
    nvml: Nvml,
    set: Set,
    get: Get,
}

fn refused(call: &'static str, code: c_int) -> Result<(), NvmlError> {
    if code == SUCCESS { Ok(()) } else { Err(NvmlError::Refused { call, code }) }
}

fn name(text: &OsStr) -> Result<CString, NvmlError> {
    CString::new(text.as_bytes()).map_err(|_| NvmlError::Name(text.to_string_lossy().into_owned()))
}

impl Nvml {
    /// Loads the library (as the loader finds it, unless named) and initializes it.
    ///
    /// # Errors
    /// [`NvmlError`]
    pub fn load(library: Option<&Path>) -> Result<Self, NvmlError> {
        let library = library.map_or(OsStr::new(LIBRARY), Path::as_os_str);
        // SAFETY: the library is NVIDIA's, named by the administrator; its initializers are meant to be run.
        let library = unsafe { Library::new(library) }.map_err(NvmlError::NoLibrary)?;
        // SAFETY: the types are those of NVML's documentation for functions of these names; `by_uuid` is used only
        // while `library` keeps the code loaded.
        let (init, by_uuid) = unsafe {
            let init = *library.get::<Init>(b"nvmlInit_v2\0").map_err(NvmlError::NoFunction)?;
            (init, *library.get::<ByUuid>(b"nvmlDeviceGetHandleByUUID\0").map_err(NvmlError::NoFunction)?)
        };
        // SAFETY: takes no argument, may be called from any thread and any number of times. It is not undone: other
        // users of the library in this process count on theirs.
        refused("nvmlInit_v2", unsafe { init() })?;
        Ok(Self { by_uuid, library: Arc::new(library) })
    }

    fn device(&self, uuid: &str) -> Result<Device, NvmlError> {
        let uuid = name(OsStr::new(uuid))?;
        let mut device: Device = std::ptr::null_mut();
        // SAFETY: a string that ends with zero and lives through the call, and a place for the handle.
        refused("nvmlDeviceGetHandleByUUID", unsafe { (self.by_uuid)(uuid.as_ptr(), &raw mut device) })?;
        Ok(device)
    }

    /// The ids of a MIG instance by its uuid: of the GPU instance, and of the compute instance in it.
    ///
    /// # Errors
    /// [`NvmlError`]
    pub fn instance(&self, uuid: &str) -> Result<(u32, u32), NvmlError> {
        let device = self.device(uuid)?;
        let id = |call: &'static str, symbol: &[u8]| {
            let mut id: c_uint = 0;
            // SAFETY: the type is that of NVML's documentation for both functions; the library stays loaded.
            let function = unsafe { self.library.get::<Id>(symbol) }.map_err(NvmlError::NoFunction)?;
            // SAFETY: a handle of this library and a place for the id.
            refused(call, unsafe { function(device, &raw mut id) })?;
            Ok(id)
        };
        let gpu = id("nvmlDeviceGetGpuInstanceId", b"nvmlDeviceGetGpuInstanceId\0")?;
        Ok((gpu, id("nvmlDeviceGetComputeInstanceId", b"nvmlDeviceGetComputeInstanceId\0")?))
    }

    /// The memory of a GPU or instance by its uuid, by the function that every driver has.
    ///
    /// # Errors
    /// [`NvmlError`]
    pub fn memory(&self, uuid: &str) -> Result<Memory, NvmlError> {
        let device = self.device(uuid)?;
        // SAFETY: the type is that of NVML's documentation; the library stays loaded.
        let function = unsafe { self.library.get::<GetMemory>(b"nvmlDeviceGetMemoryInfo\0") };
        let function = function.map_err(NvmlError::NoFunction)?;
        let mut memory = MemoryInfo::default();
        // SAFETY: a handle of this library and a place for the answer.
        refused("nvmlDeviceGetMemoryInfo", unsafe { function(device, &raw mut memory) })?;
        Ok(Memory { total: memory.total, used: memory.used })
    }

    /// The processes that compute on a GPU or instance, by its uuid, with the bytes that each holds where the driver
    /// knows them; by the functions of drivers before 510.
    ///
    /// # Errors
    /// [`NvmlError`]
    pub fn processes(&self, uuid: &str) -> Result<Vec<(u32, Option<u64>)>, NvmlError> {
        let device = self.device(uuid)?;
        let (newer, older) = ("nvmlDeviceGetComputeRunningProcesses_v2", "nvmlDeviceGetComputeRunningProcesses");
        let listed = match self.listed::<Process2>(device, newer) {
            Err(NvmlError::NoFunction(_)) => self.listed::<Process1>(device, older),
            listed => listed,
        };
        let amount = |process: Process1| (process.used != NOT_AVAILABLE).then_some(process.used);
        Ok(listed?.into_iter().map(|process| (process.pid, amount(process))).collect())
    }

    /// `P`: what the function of this name writes.
    fn listed<P: Copy + Default + Into<Process1>>(
        &self,
        device: Device,
        call: &'static str,
    ) -> Result<Vec<Process1>, NvmlError> {
        // SAFETY: the type is that of NVML's documentation for a function that writes `P`; the library stays loaded.
        let function = unsafe { self.library.get::<GetProcesses<P>>(call.as_bytes()) };
        let function = function.map_err(NvmlError::NoFunction)?;
        let mut count: c_uint = 0;
        // SAFETY: a handle of this library; without places it only counts.
        match unsafe { function(device, &raw mut count, std::ptr::null_mut()) } {
            INSUFFICIENT_SIZE => {}
            other => return refused(call, other).map(|()| Vec::new()),
        }
        count = count.min(MAX_PROCESSES) + HEADROOM;
        let mut places = vec![P::default(); count as usize];
        // SAFETY: a handle of this library, and as many places as are said.
        refused(call, unsafe { function(device, &raw mut count, places.as_mut_ptr()) })?;
        places.truncate(count as usize);
        Ok(places.into_iter().map(Into::into).collect())
    }

    /// The functions for limits of control groups.
    ///
    /// # Errors
    /// [`NvmlError::NoFunction`]: the driver is older than 615.
    pub fn memory_limits(&self) -> Result<MemoryLimits, NvmlError> {
        // SAFETY: the types are those of NVML's documentation, and the pointers are used only while `nvml` keeps the code
        // loaded.
        let (get, set) = unsafe {
            let get = *self.library.get::<Get>(b"nvmlDeviceGetMemoryLimits_v1\0").map_err(NvmlError::NoFunction)?;
            (get, *self.library.get::<Set>(b"nvmlDeviceSetMemoryLimits_v1\0").map_err(NvmlError::NoFunction)?)
        };
        Ok(MemoryLimits { nvml: self.clone(), set, get })
    }
}

impl MemoryLimits {
    /// Limits the memory of the GPU `uuid` that processes of `group` hold together; [`UNLIMITED`] lifts the limit.
    /// `group` is the directory of a control group below `/sys/fs/cgroup`, as the driver sees it.
    ///
    /// # Errors
    /// [`NvmlError`]
    pub fn set(&self, uuid: &str, group: &Path, bytes: u64) -> Result<(), NvmlError> {
        let (device, path) = (self.nvml.device(uuid)?, name(group.as_os_str())?);
        let mut limits = SetLimits { name_space: path.as_ptr(), soft: 0, hard: bytes };
        // SAFETY: a handle of this library, and a structure as documented whose string lives through the call.
        refused("nvmlDeviceSetMemoryLimits_v1", unsafe { (self.set)(device, &raw mut limits) })
    }

    /// The limits and usage of `group` on the GPU `uuid`.
    ///
    /// # Errors
    /// [`NvmlError`]
    pub fn get(&self, uuid: &str, group: &Path) -> Result<Limits, NvmlError> {
        let (device, path) = (self.nvml.device(uuid)?, name(group.as_os_str())?);
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
        let none = Nvml::load(Some(Path::new("/nonexistent/libnvidia-ml.so.1")));
        assert!(matches!(none, Err(NvmlError::NoLibrary(_))));
        // any library other than the management library will do
        let other = Nvml::load(Some(Path::new("libc.so.6")));
        assert!(matches!(other, Err(NvmlError::NoFunction(_))), "{other:?}");
    }
}
