//! `cuGetProcAddress`: names without suffixes, by version and default stream.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use crate::capture::{
    cuStreamBeginCapture_v2, cuStreamBeginCaptureToGraph, cuStreamBeginRecaptureToGraph, cuStreamEndCapture,
    cuStreamGetCaptureInfo_v2, cuStreamIsCapturing, cuThreadExchangeStreamCaptureMode,
};
use crate::context::{
    cuCtxAttach, cuCtxCreate_v2, cuCtxDestroy_v2, cuCtxDetach, cuCtxFromGreenCtx, cuCtxGetCurrent, cuCtxGetDevice,
    cuCtxPopCurrent_v2, cuCtxPushCurrent_v2, cuCtxSetCurrent, cuDevicePrimaryCtxGetState,
    cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxReset_v2, cuDevicePrimaryCtxRetain, cuGreenCtxCreate,
    cuGreenCtxDestroy, cuGreenCtxStreamCreate, cuStreamGetCtx,
};
use crate::copy::{
    cuMemcpyAsync, cuMemcpyAsync_ptsz, cuMemcpyDtoD_v2, cuMemcpyDtoDAsync_v2, cuMemcpyDtoDAsync_v2_ptsz,
    cuMemcpyDtoH_v2, cuMemcpyDtoHAsync_v2, cuMemcpyDtoHAsync_v2_ptsz, cuMemcpyHtoD_v2, cuMemcpyHtoDAsync_v2,
    cuMemcpyHtoDAsync_v2_ptsz, cuMemsetD8_v2, cuMemsetD8Async, cuMemsetD8Async_ptsz,
};
use crate::device::{
    cuCtxGetApiVersion, cuCtxGetFlags, cuCtxGetStreamPriorityRange, cuDeviceCanAccessPeer,
    cuDeviceComputeCapability, cuDeviceGetAttribute, cuDeviceGetPCIBusId, cuDevicePrimaryCtxSetFlags_v2,
};
use crate::driver::{INVALID_VALUE, NOT_FOUND, SUCCESS, Status};
use crate::error::{cuGetErrorName, cuGetErrorString};
use crate::event::{
    cuEventCreate, cuEventDestroy_v2, cuEventElapsedTime, cuEventQuery, cuEventRecord, cuEventRecord_ptsz,
    cuEventRecordWithFlags, cuEventRecordWithFlags_ptsz, cuEventSynchronize, cuStreamWaitEvent,
    cuStreamWaitEvent_ptsz,
};
use crate::graph::{
    cuDeviceGetGraphMemAttribute, cuDeviceGraphMemTrim, cuGraphAddKernelNode_v2, cuGraphAddMemAllocNode,
    cuGraphAddNode_v2, cuGraphClone, cuGraphCreate, cuGraphDestroy, cuGraphExecDestroy, cuGraphExecUpdate_v2,
    cuGraphInstantiateWithFlags, cuGraphInstantiateWithParams, cuGraphLaunch, cuGraphLaunch_ptsz, cuGraphUpload,
};
use crate::host::{
    cuMemAllocHost_v2, cuMemFreeHost, cuMemHostAlloc, cuMemHostGetDevicePointer_v2, cuMemHostRegister_v2,
    cuMemHostUnregister,
};
use crate::memory::{
    cuArray3DCreate_v2, cuArrayCreate_v2, cuArrayDestroy, cuDestroyExternalMemory, cuImportExternalMemory,
    cuIpcCloseMemHandle, cuIpcGetMemHandle, cuIpcOpenMemHandle_v2, cuMemAddressReserve, cuMemAlloc, cuMemAlloc_v2,
    cuMemAllocManaged, cuMemAllocPitch_v2, cuMemCreate, cuMemExportToShareableHandle, cuMemFree_v2,
    cuMemGetAddressRange_v2, cuMemImportFromShareableHandle, cuMemMap, cuMemRelease, cuMemRetainAllocationHandle,
    cuMemUnmap, cuMipmappedArrayCreate, cuMipmappedArrayDestroy,
};
use crate::module::{
    cuFuncGetAttribute, cuFuncSetAttribute, cuKernelGetAttribute, cuKernelGetFunction, cuKernelSetAttribute,
    cuLibraryGetKernel, cuLibraryGetModule, cuLibraryLoadData, cuLibraryUnload, cuModuleGetFunction,
    cuModuleGetLoadingMode, cuModuleLoadData, cuModuleLoadDataEx, cuModuleUnload,
    cuOccupancyMaxActiveBlocksPerMultiprocessor,
};
use crate::pointer::{cuMemAddressFree, cuMemGetAllocationGranularity, cuMemSetAccess, cuPointerGetAttribute};
use crate::pool::{
    cuDeviceGetDefaultMemPool, cuDeviceGetMemPool, cuDeviceSetMemPool, cuMemAllocAsync, cuMemAllocAsync_ptsz,
    cuMemAllocFromPoolAsync, cuMemAllocFromPoolAsync_ptsz, cuMemFreeAsync, cuMemFreeAsync_ptsz, cuMemPoolCreate,
    cuMemPoolDestroy, cuMemPoolGetAttribute, cuMemPoolSetAttribute, cuMemPoolTrimTo,
};
use crate::stream::{
    cuCtxSynchronize, cuLaunchCooperativeKernel, cuLaunchCooperativeKernel_ptsz, cuLaunchHostFunc, cuLaunchKernel,
    cuLaunchKernel_ptsz, cuLaunchKernelEx, cuLaunchKernelEx_ptsz, cuStreamCreate, cuStreamCreateWithPriority,
    cuStreamDestroy_v2, cuStreamGetFlags, cuStreamGetPriority, cuStreamQuery, cuStreamSynchronize,
    cuStreamSynchronize_ptsz,
};
use crate::user::{
    cuGraphReleaseUserObject, cuGraphRetainUserObject, cuUserObjectCreate, cuUserObjectRelease, cuUserObjectRetain,
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
    ("cuMemHostRegister", 6050, "_v2"),
    ("cuDevicePrimaryCtxSetFlags", 11000, "_v2"),
    ("cuGraphInstantiate", 12000, "WithFlags"),
    ("cuGraphExecUpdate", 12000, "_v2"),
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
    "cuMemcpyDtoHAsync",
    "cuMemcpyHtoD",
    "cuMemcpyHtoDAsync",
    "cuMemcpyDtoD",
    "cuMemcpyDtoDAsync",
    "cuMemsetD8",
    "cuMemAllocHost",
    "cuMemHostGetDevicePointer",
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
    cuCtxAttach,
    cuCtxCreate_v2,
    cuCtxDestroy_v2,
    cuCtxDetach,
    cuCtxFromGreenCtx,
    cuCtxGetApiVersion,
    cuCtxGetCurrent,
    cuCtxGetDevice,
    cuCtxGetFlags,
    cuCtxGetStreamPriorityRange,
    cuCtxPopCurrent_v2,
    cuCtxPushCurrent_v2,
    cuCtxSetCurrent,
    cuCtxSetLimit,
    cuCtxSynchronize,
    cuDestroyExternalMemory,
    cuDeviceCanAccessPeer,
    cuDeviceComputeCapability,
    cuDeviceGet,
    cuDeviceGetAttribute,
    cuDeviceGetCount,
    cuDeviceGetDefaultMemPool,
    cuDeviceGetGraphMemAttribute,
    cuDeviceGetMemPool,
    cuDeviceGetName,
    cuDeviceGetPCIBusId,
    cuDeviceGetUuid,
    cuDeviceGetUuid_v2,
    cuDeviceGraphMemTrim,
    cuDevicePrimaryCtxGetState,
    cuDevicePrimaryCtxRelease_v2,
    cuDevicePrimaryCtxReset_v2,
    cuDevicePrimaryCtxRetain,
    cuDevicePrimaryCtxSetFlags_v2,
    cuDeviceSetMemPool,
    cuDeviceTotalMem_v2,
    cuDriverGetVersion,
    cuEventCreate,
    cuEventDestroy_v2,
    cuEventElapsedTime,
    cuEventQuery,
    cuEventRecord,
    cuEventRecordWithFlags,
    cuEventRecordWithFlags_ptsz,
    cuEventRecord_ptsz,
    cuEventSynchronize,
    cuFuncGetAttribute,
    cuFuncSetAttribute,
    cuGetErrorName,
    cuGetErrorString,
    cuGetProcAddress,
    cuGetProcAddress_v2,
    cuGraphAddKernelNode_v2,
    cuGraphAddMemAllocNode,
    cuGraphAddNode_v2,
    cuGraphClone,
    cuGraphCreate,
    cuGraphDestroy,
    cuGraphExecDestroy,
    cuGraphExecUpdate_v2,
    cuGraphInstantiateWithFlags,
    cuGraphInstantiateWithParams,
    cuGraphLaunch,
    cuGraphLaunch_ptsz,
    cuGraphReleaseUserObject,
    cuGraphRetainUserObject,
    cuGraphUpload,
    cuGreenCtxCreate,
    cuGreenCtxDestroy,
    cuGreenCtxStreamCreate,
    cuImportExternalMemory,
    cuInit,
    cuIpcCloseMemHandle,
    cuIpcGetMemHandle,
    cuIpcOpenMemHandle_v2,
    cuKernelGetAttribute,
    cuKernelGetFunction,
    cuKernelSetAttribute,
    cuLaunchCooperativeKernel,
    cuLaunchCooperativeKernel_ptsz,
    cuLaunchHostFunc,
    cuLaunchKernel,
    cuLaunchKernelEx,
    cuLaunchKernelEx_ptsz,
    cuLaunchKernel_ptsz,
    cuLibraryGetKernel,
    cuLibraryGetModule,
    cuLibraryLoadData,
    cuLibraryUnload,
    cuMemAddressFree,
    cuMemAddressReserve,
    cuMemAlloc,
    cuMemAllocAsync,
    cuMemAllocAsync_ptsz,
    cuMemAllocFromPoolAsync,
    cuMemAllocFromPoolAsync_ptsz,
    cuMemAllocHost_v2,
    cuMemAllocManaged,
    cuMemAllocPitch_v2,
    cuMemAlloc_v2,
    cuMemCreate,
    cuMemExportToShareableHandle,
    cuMemFreeAsync,
    cuMemFreeAsync_ptsz,
    cuMemFreeHost,
    cuMemFree_v2,
    cuMemGetAddressRange_v2,
    cuMemGetAllocationGranularity,
    cuMemGetInfo_v2,
    cuMemHostAlloc,
    cuMemHostGetDevicePointer_v2,
    cuMemHostRegister_v2,
    cuMemHostUnregister,
    cuMemImportFromShareableHandle,
    cuMemMap,
    cuMemPoolCreate,
    cuMemPoolDestroy,
    cuMemPoolGetAttribute,
    cuMemPoolSetAttribute,
    cuMemPoolTrimTo,
    cuMemRelease,
    cuMemRetainAllocationHandle,
    cuMemSetAccess,
    cuMemUnmap,
    cuMemcpyAsync,
    cuMemcpyAsync_ptsz,
    cuMemcpyDtoDAsync_v2,
    cuMemcpyDtoDAsync_v2_ptsz,
    cuMemcpyDtoD_v2,
    cuMemcpyDtoHAsync_v2,
    cuMemcpyDtoHAsync_v2_ptsz,
    cuMemcpyDtoH_v2,
    cuMemcpyHtoDAsync_v2,
    cuMemcpyHtoDAsync_v2_ptsz,
    cuMemcpyHtoD_v2,
    cuMemsetD8Async,
    cuMemsetD8Async_ptsz,
    cuMemsetD8_v2,
    cuMipmappedArrayCreate,
    cuMipmappedArrayDestroy,
    cuModuleGetFunction,
    cuModuleGetLoadingMode,
    cuModuleLoadData,
    cuModuleLoadDataEx,
    cuModuleUnload,
    cuOccupancyMaxActiveBlocksPerMultiprocessor,
    cuPointerGetAttribute,
    cuStreamBeginCaptureToGraph,
    cuStreamBeginCapture_v2,
    cuStreamBeginRecaptureToGraph,
    cuStreamCreate,
    cuStreamCreateWithPriority,
    cuStreamDestroy_v2,
    cuStreamEndCapture,
    cuStreamGetCaptureInfo_v2,
    cuStreamGetCtx,
    cuStreamGetFlags,
    cuStreamGetPriority,
    cuStreamIsCapturing,
    cuStreamQuery,
    cuStreamSynchronize,
    cuStreamSynchronize_ptsz,
    cuStreamWaitEvent,
    cuStreamWaitEvent_ptsz,
    cuThreadExchangeStreamCaptureMode,
    cuUserObjectCreate,
    cuUserObjectRelease,
    cuUserObjectRetain,
];
