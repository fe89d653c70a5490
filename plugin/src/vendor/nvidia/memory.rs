//! Questions that drivers of different ages answer by different functions, and some GPUs not at all.

use nvml_wrapper::Device as NvmlDevice;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::{NvmlError, nvml_try};

/// In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub total: u64,
    pub used: u64,
}

/// Whether an error only says that the library or this GPU does not know the question: an answer all the same, since
/// a GPU that is lost says that it is.
pub(super) fn unknown(error: &NvmlError) -> bool {
    use NvmlError::{FailedToLoadSymbol, FunctionNotFound, NotSupported};
    matches!(error, FailedToLoadSymbol(_) | FunctionNotFound | NotSupported)
}

/// `None` where the driver does not tell it, as of GPUs that use the machine's memory. `more` is asked by the uuid
/// where the driver is older than 510.
pub(super) fn of(
    card: &NvmlDevice<'_>,
    uuid: &str,
    more: Option<&kerf_nvml::Nvml>,
) -> Result<Option<Memory>, NvmlError> {
    match card.memory_info() {
        Ok(memory) => return Ok(Some(Memory { total: memory.total, used: memory.used })),
        Err(error) if unknown(&error) => {}
        Err(error) => return Err(error),
    }
    match more.map(|more| more.memory(uuid)) {
        Some(Ok(memory)) => Ok(Some(Memory { total: memory.total, used: memory.used })),
        Some(Err(kerf_nvml::NvmlError::Refused { code, .. })) => {
            let refused = nvml_try(code.unsigned_abs());
            refused.map(|()| None).or_else(|error| if unknown(&error) { Ok(None) } else { Err(error) })
        }
        Some(Err(_)) | None => Ok(None),
    }
}

/// What each process holds, in bytes where that is known.
pub(super) fn processes(
    card: &NvmlDevice<'_>,
    uuid: &str,
    more: Option<&kerf_nvml::Nvml>,
) -> Vec<(u32, Option<u64>)> {
    let held = |memory| match memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    match card.running_compute_processes() {
        Ok(processes) => {
            processes.into_iter().map(|process| (process.pid, held(process.used_gpu_memory))).collect()
        }
        Err(error) if unknown(&error) => more.and_then(|more| more.processes(uuid).ok()).unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}
