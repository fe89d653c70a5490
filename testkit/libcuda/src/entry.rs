//! `cuGetProcAddress`: names without suffixes, by version and default stream.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use crate::capture::{
    cuStreamBeginCapture_v2, cuStreamBeginCaptureToGraph, cuStreamBeginRecaptureToGraph, cuStreamEndCapture,
    cuStreamGetCaptureInfo_v2, cuStreamIsCapturing, cuThreadExchangeStreamCaptureMode,
};
use crate::context::{
    cuCtxCreate_v2, cuCtxDestroy_v2, cuCtxFromGreenCtx, cuCtxGetCurrent, cuCtxGetDevice, cuCtxPopCurrent_v2,
    cuCtxPushCurrent_v2, cuCtxSetCurrent, cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxRelease_v2,
    cuDevicePrimaryCtxReset_v2, cuDevicePrimaryCtxRetain, cuGreenCtxCreate, cuGreenCtxDestroy,
    cuGreenCtxStreamCreate, cuStreamGetCtx,
};
use crate::driver::{INVALID_VALUE, NOT_FOUND, SUCCESS, Status};
use crate::event::{
    cuEventCreate, cuEventDestroy_v2, cuEventElapsedTime, cuEventQuery, cuEventRecord, cuEventSynchronize,
};
use crate::graph::{
    cuDeviceGetGraphMemAttribute, cuDeviceGraphMemTrim, cuGraphAddKernelNode_v2, cuGraphAddMemAllocNode,
    cuGraphAddNode_v2, cuGraphClone, cuGraphCreate, cuGraphDestroy, cuGraphExecDestroy,
    cuGraphInstantiateWithFlags, cuGraphLaunch, cuGraphLaunch_ptsz, cuGraphUpload,
};
use crate::memory::{
    cuArray3DCreate_v2, cuArrayCreate_v2, cuArrayDestroy, cuDestroyExternalMemory, cuImportExternalMemory,
    cuIpcCloseMemHandle, cuIpcGetMemHandle, cuIpcOpenMemHandle_v2, cuMemAddressReserve, cuMemAlloc, cuMemAlloc_v2,
    cuMemAllocManaged, cuMemAllocPitch_v2, cuMemCreate, cuMemExportToShareableHandle, cuMemFree_v2,
    cuMemGetAddressRange_v2, cuMemHostAlloc, cuMemImportFromShareableHandle, cuMemMap, cuMemRelease,
    cuMemRetainAllocationHandle, cuMemUnmap, cuMemcpyDtoH_v2, cuMipmappedArrayCreate, cuMipmappedArrayDestroy,
};
use crate::pool::{
    cuDeviceGetDefaultMemPool, cuDeviceGetMemPool, cuDeviceSetMemPool, cuMemAllocAsync, cuMemAllocAsync_ptsz,
    cuMemAllocFromPoolAsync, cuMemAllocFromPoolAsync_ptsz, cuMemFreeAsync, cuMemFreeAsync_ptsz, cuMemPoolCreate,
    cuMemPoolDestroy, cuMemPoolGetAttribute, cuMemPoolSetAttribute, cuMemPoolTrimTo,
};
use crate::stream::{
    cuCtxSynchronize, cuLaunchCooperativeKernel, cuLaunchHostFunc, cuLaunchKernel, cuLaunchKernel_ptsz,
    cuLaunchKernelEx, cuModuleGetFunction, cuModuleLoadData, cuStreamCreate, cuStreamDestroy_v2, cuStreamQuery,
    cuStreamSynchronize, cuStreamSynchronize_ptsz,
};
use crate::{
    cuCtxSetLimit, cuDeviceGet, cuDeviceGetCount, cuDeviceGetName, cuDeviceGetUuid, cuDeviceGetUuid_v2,
    cuDeviceTotalMem_v2, cuDriverGetVersion, cuInit, cuMemGetInfo_v2,
};

/// Names that the driver answers with a function of another name: version, and suffix of the exported name.
const VERSIONED: &[(&str, c_int, &str)] = &[
    ("cuMemAlloc", 2000, ""),
    ("cuMemAlloc", 3020, "_v2"),
    ("cuGraphAddNode", 12030, "_v2"),
    ("cuGraphAddKernelNode", 12000, "_v2"),
    ("cuIpcOpenMemHandle", 11000, "_v2"),
    ("cuStreamBeginCapture", 10010, "_v2"),
    ("cuStreamGetCaptureInfo", 11030, "_v2"),
    ("cuGetProcAddress", 12000, "_v2"),
    ("cuDevicePrimaryCtxRelease", 11000, "_v2"),
    ("cuDevicePrimaryCtxReset", 11000, "_v2"),
    ("cuCtxDestroy", 4000, "_v2"),
    ("cuStreamDestroy", 4000, "_v2"),
    ("cuEventDestroy", 4000, "_v2"),
    ("cuCtxPushCurrent", 4000, "_v2"),
    ("cuCtxPopCurrent", 4000, "_v2"),
];

/// Names that got a suffix in version 3.2.
const SINCE_3020: &[&str] = &[
    "cuMemAllocPitch",
    "cuMemFree",
    "cuMemGetInfo",
    "cuDeviceTotalMem",
    "cuArrayCreate",
    "cuArray3DCreate",
    "cuMemGetAddressRange",
    "cuCtxCreate",
    "cuMemcpyDtoH",
];

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
    status: *mut c_int,
) -> Status {
    if symbol.is_null() || function.is_null() {
        return INVALID_VALUE;
    }
    let found = find(unsafe { CStr::from_ptr(symbol) }, version, flags & 2 != 0);
    unsafe { function.write(found) };
    if !status.is_null() {
        unsafe { status.write(c_int::from(found.is_null())) };
    }
    if found.is_null() { NOT_FOUND } else { SUCCESS }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress(
    symbol: *const c_char,
    function: *mut *mut c_void,
    version: c_int,
    flags: u64,
) -> Status {
    unsafe { cuGetProcAddress_v2(symbol, function, version, flags, ptr::null_mut()) }
}

fn find(symbol: &CStr, version: c_int, per_thread: bool) -> *mut c_void {
    let name = symbol.to_str().unwrap_or_default();
    let known = VERSIONED.iter().rfind(|(n, since, _)| *n == name && *since <= version);
    let suffix = match known {
        Some((_, _, suffix)) => suffix,
        None if SINCE_3020.contains(&name) && version >= 3020 => "_v2",
        None => "",
    };
    let own = |name: String| OWN.0.iter().find(|(own, _)| *own == name).map_or(ptr::null_mut(), |(_, f)| *f);
    if per_thread {
        let found = own(format!("{name}{suffix}_ptsz"));
        if !found.is_null() {
            return found;
        }
    }
    own(format!("{name}{suffix}"))
}

struct Own(&'static [(&'static str, *mut c_void)]);

// SAFETY: the pointers are addresses of functions, which never change.
unsafe impl Sync for Own {}

macro_rules! own {
    ($($name:ident),* $(,)?) => { Own(&[$((stringify!($name), $name as *mut c_void)),*]) };
}

/// All of this library's functions.
static OWN: Own = own![
    cuArray3DCreate_v2,
    cuArrayCreate_v2,
    cuArrayDestroy,
    cuCtxCreate_v2,
    cuCtxDestroy_v2,
    cuCtxFromGreenCtx,
    cuCtxGetCurrent,
    cuCtxGetDevice,
    cuCtxPopCurrent_v2,
    cuCtxPushCurrent_v2,
    cuCtxSetCurrent,
    cuCtxSetLimit,
    cuCtxSynchronize,
    cuDestroyExternalMemory,
    cuDeviceGet,
    cuDeviceGetCount,
    cuDeviceGetDefaultMemPool,
    cuDeviceGetGraphMemAttribute,
    cuDeviceGetMemPool,
    cuDeviceGetName,
    cuDeviceGetUuid,
    cuDeviceGetUuid_v2,
    cuDeviceGraphMemTrim,
    cuDevicePrimaryCtxGetState,
    cuDevicePrimaryCtxRelease_v2,
    cuDevicePrimaryCtxReset_v2,
    cuDevicePrimaryCtxRetain,
    cuDeviceSetMemPool,
    cuDeviceTotalMem_v2,
    cuDriverGetVersion,
    cuEventCreate,
    cuEventDestroy_v2,
    cuEventElapsedTime,
    cuEventQuery,
    cuEventRecord,
    cuEventSynchronize,
    cuGetProcAddress,
    cuGetProcAddress_v2,
    cuGraphAddKernelNode_v2,
    cuGraphAddMemAllocNode,
    cuGraphAddNode_v2,
    cuGraphClone,
    cuGraphCreate,
    cuGraphDestroy,
    cuGraphExecDestroy,
    cuGraphInstantiateWithFlags,
    cuGraphLaunch,
    cuGraphLaunch_ptsz,
    cuGraphUpload,
    cuGreenCtxCreate,
    cuGreenCtxDestroy,
    cuGreenCtxStreamCreate,
    cuImportExternalMemory,
    cuInit,
    cuIpcCloseMemHandle,
    cuIpcGetMemHandle,
    cuIpcOpenMemHandle_v2,
    cuLaunchCooperativeKernel,
    cuLaunchHostFunc,
    cuLaunchKernel,
    cuLaunchKernelEx,
    cuLaunchKernel_ptsz,
    cuMemAddressReserve,
    cuMemAlloc,
    cuMemAllocAsync,
    cuMemAllocAsync_ptsz,
    cuMemAllocFromPoolAsync,
    cuMemAllocFromPoolAsync_ptsz,
    cuMemAllocManaged,
    cuMemAllocPitch_v2,
    cuMemAlloc_v2,
    cuMemCreate,
    cuMemExportToShareableHandle,
    cuMemFreeAsync,
    cuMemFreeAsync_ptsz,
    cuMemFree_v2,
    cuMemGetAddressRange_v2,
    cuMemGetInfo_v2,
    cuMemHostAlloc,
    cuMemImportFromShareableHandle,
    cuMemMap,
    cuMemPoolCreate,
    cuMemPoolDestroy,
    cuMemPoolGetAttribute,
    cuMemPoolSetAttribute,
    cuMemPoolTrimTo,
    cuMemRelease,
    cuMemRetainAllocationHandle,
    cuMemUnmap,
    cuMemcpyDtoH_v2,
    cuMipmappedArrayCreate,
    cuMipmappedArrayDestroy,
    cuModuleGetFunction,
    cuModuleLoadData,
    cuStreamBeginCaptureToGraph,
    cuStreamBeginCapture_v2,
    cuStreamBeginRecaptureToGraph,
    cuStreamCreate,
    cuStreamDestroy_v2,
    cuStreamEndCapture,
    cuStreamGetCaptureInfo_v2,
    cuStreamGetCtx,
    cuStreamIsCapturing,
    cuStreamQuery,
    cuStreamSynchronize,
    cuStreamSynchronize_ptsz,
    cuThreadExchangeStreamCaptureMode,
];
