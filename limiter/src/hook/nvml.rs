//! The management library's view of a GPU's memory, which `nvidia-smi` shows.

use std::ffi::{CStr, c_char};

use crate::abi::{Handle, NvmlMemory, NvmlMemory2, SUCCESS, Status, UNKNOWN, check};
use crate::driver;
use crate::memory::sum::Book;
use crate::process;

/// Total, used and free bytes that the container sees of a GPU of `total` bytes.
fn share(account: &Book, total: u64) -> (u64, u64, u64) {
    let total = total.min(account.cap());
    let used = account.used().min(total);
    (total, used, total - used)
}

pub unsafe fn memory(call: impl FnOnce() -> Status, device: Handle, memory: *mut NvmlMemory) -> Result<(), Status> {
    let account = account(device)?;
    check(call())?;
    if let Some(account) = account {
        // SAFETY: the driver has accepted the pointer and written to it.
        let memory = unsafe { &mut *memory };
        (memory.total, memory.used, memory.free) = share(account, memory.total);
    }
    Ok(())
}

pub unsafe fn memory2(
    call: impl FnOnce() -> Status,
    device: Handle,
    memory: *mut NvmlMemory2,
) -> Result<(), Status> {
    let account = account(device)?;
    check(call())?;
    if let Some(account) = account {
        // SAFETY: the driver has accepted the pointer and its version, and written to it.
        let memory = unsafe { &mut *memory };
        (memory.total, memory.used, memory.free) = share(account, memory.total);
        memory.reserved = 0;
    }
    Ok(())
}

/// The account of a GPU; `None` for one that the limits do not name.
fn account(device: Handle) -> Result<Option<&'static Book>, Status> {
    let mut uuid: [c_char; 96] = [0; 96];
    // SAFETY: the device is the program's, and the buffer is a local of that length.
    let status = unsafe { driver::nvmlDeviceGetUUID(device, uuid.as_mut_ptr(), uuid.len() as u32) };
    // SAFETY: the library ends the text with a zero.
    let uuid = (status == SUCCESS).then(|| unsafe { CStr::from_ptr(uuid.as_ptr()) });
    // NVML's own code for an unknown error, which differs from CUDA's
    process::book(uuid.and_then(|uuid| uuid.to_str().ok()).unwrap_or_default()).map_err(|_| UNKNOWN)
}
