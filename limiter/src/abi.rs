//! The driver's binary interface, as far as the limiter needs it: types, numbers and the offsets of fields.
//!
//! Taken from the facts of the public headers `cuda.h`, `cudaTypedefs.h` (CUDA 12.9 and 13.5) and `nvml.h`. Structures
//! that are only read in part are read by offset, since later versions append fields.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::ops::RangeInclusive;

/// `CUresult` and `nvmlReturn_t`: 0 is success.
pub type Status = c_int;
/// `CUdeviceptr`, 64 bits wide since version 3.2.
pub type Pointer = c_ulonglong;
/// `CUdevice`: the ordinal.
pub type Device = c_int;
/// `CUcontext`, `CUstream`, `CUevent`, `CUfunction`, `CUarray`, `CUmemoryPool`, `CUgraph`...: never looked into.
pub type Handle = *mut c_void;

/// `CUDA_SUCCESS`.
pub const SUCCESS: Status = 0;
/// `CUDA_ERROR_INVALID_VALUE`.
pub const INVALID_VALUE: Status = 1;
/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub const OUT_OF_MEMORY: Status = 2;
/// `CUDA_ERROR_NOT_FOUND`.
pub const NOT_FOUND: Status = 500;
/// `CUDA_ERROR_NOT_READY`: work is not done yet.
pub const NOT_READY: Status = 600;
/// `CUDA_ERROR_NOT_SUPPORTED`: for functions with 32-bit sizes, which no toolkit since 2010 calls.
pub const NOT_SUPPORTED: Status = 801;
/// `CUDA_ERROR_SYSTEM_NOT_READY`: what a container without usable limits gets from every call.
pub const SYSTEM_NOT_READY: Status = 802;
/// `CUDA_ERROR_UNKNOWN`.
pub const UNKNOWN: Status = 999;

/// A driver's status as a hook's result.
pub fn check(status: Status) -> Result<(), Status> {
    if status == SUCCESS { Ok(()) } else { Err(status) }
}

/// `CU_MEM_LOCATION_TYPE_DEVICE`.
pub const LOCATION_DEVICE: c_int = 1;
/// `CU_MEM_LOCATION_TYPE_HOST`, `_HOST_NUMA` and `_HOST_NUMA_CURRENT`.
const LOCATION_HOST: RangeInclusive<c_int> = 2..=4;
/// `CU_MEM_ALLOCATION_TYPE_MANAGED`.
const KIND_MANAGED: c_int = 2;
/// `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
pub const HANDLE_DESCRIPTOR: c_int = 1;
/// `CU_MEMPOOL_ATTR_USED_MEM_CURRENT`.
pub const POOL_USED: c_int = 7;
/// `CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT`.
pub const POOL_RESERVED: c_int = 5;
/// `CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT`.
pub const GRAPH_RESERVED: c_int = 2;
/// `CU_GRAPH_NODE_TYPE_GRAPH`.
pub const NODE_GRAPH: c_int = 4;
/// `CU_GRAPH_NODE_TYPE_MEM_ALLOC`.
pub const NODE_MEM_ALLOC: c_int = 10;
/// `CU_LIMIT_MALLOC_HEAP_SIZE`.
pub const LIMIT_MALLOC_HEAP: c_int = 2;
/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
pub const CAPTURE_RELAXED: c_int = 2;
/// `CU_MEM_OPERATION_TYPE_MAP`.
pub const OPERATION_MAP: c_int = 1;
/// `CU_EVENT_DEFAULT`.
pub const EVENT_DEFAULT: c_uint = 0;
/// `CU_STREAM_LEGACY`; 0 means it as well.
pub const STREAM_LEGACY: usize = 1;
/// `CU_STREAM_PER_THREAD`.
pub const STREAM_PER_THREAD: usize = 2;

/// `CUuuid`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Uuid(pub [u8; 16]);

/// `CUipcMemHandle`, passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IpcHandle(pub [u8; 64]);

/// `CUDA_ARRAY_DESCRIPTOR_v2`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ArrayDescriptor {
    /// Elements in a row.
    pub width: usize,
    /// Rows; 0 for one dimension.
    pub height: usize,
    /// `CUarray_format`.
    pub format: c_uint,
    /// Channels in an element.
    pub channels: c_uint,
}

/// `CUDA_ARRAY3D_DESCRIPTOR_v2`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Array3dDescriptor {
    /// Elements in a row.
    pub width: usize,
    /// Rows; 0 for one dimension.
    pub height: usize,
    /// Planes or layers; 0 for fewer than three dimensions.
    pub depth: usize,
    /// `CUarray_format`.
    pub format: c_uint,
    /// Channels in an element.
    pub channels: c_uint,
    /// `CUDA_ARRAY3D_*`.
    pub flags: c_uint,
}

/// The beginning of `CUmemAllocationProp` and of `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Properties {
    kind: c_int,
    handle_types: c_int,
    /// `CUmemLocation::type`.
    pub location: c_int,
    /// `CUmemLocation::id`.
    pub id: c_int,
}

impl Properties {
    /// Whether it is memory of the host and stays there. Managed memory goes to the GPU that uses it, and a location that is
    /// not known here (CUDA 13.4 came with one) is taken to be of the GPU.
    pub fn on_host(&self) -> bool {
        self.kind != KIND_MANAGED && LOCATION_HOST.contains(&self.location)
    }
}

/// `CUDA_MEM_ALLOC_NODE_PARAMS`; the second version is laid out the same.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AllocNode {
    /// The beginning of its `CUmemPoolProps`.
    pub properties: Properties,
    rest: [u64; 9],
    access: *const c_void,
    access_count: usize,
    /// Bytes that the program asks for.
    pub bytes: usize,
    /// Written by the driver.
    pub pointer: Pointer,
}

/// `CUgraphNodeParams`: the type, and 232 bytes that depend on it.
#[repr(C)]
pub struct NodeParams {
    /// `CUgraphNodeType`.
    pub kind: c_int,
    reserved: [c_int; 3],
    /// Parameters, whose layout depends on the type.
    pub content: [u64; 29],
    reserved2: i64,
}

/// The beginning of `CUlaunchConfig`.
#[repr(C)]
pub struct LaunchConfig {
    sizes: [c_uint; 7],
    pub stream: Handle,
}

/// `CUDA_LAUNCH_PARAMS`, one for each device.
#[repr(C)]
pub struct LaunchParams {
    function: Handle,
    sizes: [c_uint; 7],
    pub stream: Handle,
    parameters: *mut *mut c_void,
}

/// `CUarrayMapInfo`.
#[repr(C)]
pub struct ArrayMap {
    resource_and_place: [u64; 7],
    /// `CUmemOperationType`.
    pub operation: c_int,
    handle_type: c_int,
    /// The memory that is mapped.
    pub handle: c_ulonglong,
    rest: [u64; 3],
}

/// The beginning of `CUDA_EXTERNAL_MEMORY_HANDLE_DESC`.
#[repr(C)]
pub struct ExternalMemory {
    kind: c_int,
    handle: [u64; 2],
    /// Bytes of the memory.
    pub bytes: c_ulonglong,
}

/// `nvmlMemory_t`.
#[repr(C)]
pub struct NvmlMemory {
    /// Bytes of the whole GPU.
    pub total: c_ulonglong,
    pub free: c_ulonglong,
    pub used: c_ulonglong,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
pub struct NvmlMemory2 {
    /// Size and version of the structure.
    pub version: c_uint,
    /// Bytes of the whole GPU.
    pub total: c_ulonglong,
    /// Bytes that the driver keeps for itself.
    pub reserved: c_ulonglong,
    pub free: c_ulonglong,
    pub used: c_ulonglong,
}

// Offsets of the fields that are read, as in the headers' structures.
const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(offset_of!(Properties, location) == 8);
    assert!(offset_of!(AllocNode, bytes) == 104 && offset_of!(AllocNode, pointer) == 112);
    assert!(offset_of!(NodeParams, content) == 16 && size_of::<NodeParams>() == 256);
    assert!(offset_of!(LaunchConfig, stream) == 32);
    assert!(offset_of!(LaunchParams, stream) == 40 && size_of::<LaunchParams>() == 56);
    assert!(offset_of!(ArrayMap, operation) == 56 && offset_of!(ArrayMap, handle) == 64);
    assert!(size_of::<ArrayMap>() == 96);
    assert!(offset_of!(ExternalMemory, bytes) == 24);
    assert!(size_of::<NvmlMemory2>() == 0x28);
};
