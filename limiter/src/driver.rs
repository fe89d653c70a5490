//! The driver's own functions, which hooks and the rest of the limiter call. A function that this driver does not have
//! returns `CUDA_ERROR_NOT_FOUND`.

#![allow(non_snake_case, non_upper_case_globals, clippy::too_many_arguments, reason = "the driver's own")]
#![allow(clippy::missing_safety_doc, reason = "as the driver's documentation says of each")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::mem;

use crate::abi::*;
use crate::functions::functions;

macro_rules! declare {
    ($($library:ident $name:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            pub unsafe fn $name($($argument: $type),*) -> Status {
                let address = function::$name.address();
                if address.is_null() {
                    return NOT_FOUND;
                }
                // SAFETY: the driver's function of this name has this signature.
                let function: unsafe extern "C" fn($($type),*) -> Status = unsafe { mem::transmute(address) };
                // SAFETY: the caller keeps the driver's requirements.
                unsafe { function($($argument),*) }
            }
        )*

        /// The functions' addresses.
        pub mod function {
            use super::CStr;
            use crate::library::{CUDA, Function, NVML};

            $(
                pub static $name: Function = {
                    const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => c"",
                    };
                    Function::new(&$library, NAME)
                };
            )*
        }
    };
}

macro_rules! declare_all {
    ($($library:ident $since:literal $name:ident($($argument:ident: $type:ty),*) = $module:ident::$hook:ident($($given:tt)*);)*) => {
        declare! {
            $($library $name($($argument: $type),*);)*

            // called, but not replaced
                CUDA cuDeviceGetCount(count: *mut c_int);
                CUDA cuDeviceGetUuid(uuid: *mut Uuid, device: Device);
                CUDA cuDeviceGetUuid_v2(uuid: *mut Uuid, device: Device);
                CUDA cuDevicePrimaryCtxGetState(device: Device, flags: *mut c_uint, active: *mut c_int);
                CUDA cuDeviceGetMemPool(pool: *mut Handle, device: Device);
                CUDA cuDeviceGetGraphMemAttribute(device: Device, attribute: c_int, value: *mut u64);
                CUDA cuCtxGetCurrent(context: *mut Handle);
                CUDA cuCtxPushCurrent_v2(context: Handle);
                CUDA cuCtxPopCurrent_v2(context: *mut Handle);
                CUDA cuCtxGetDevice(device: *mut Device);
                CUDA cuMemPoolGetAttribute(pool: Handle, attribute: c_int, value: *mut u64);
                CUDA cuMemGetAddressRange_v2(base: *mut Pointer, bytes: *mut usize, pointer: Pointer);
                CUDA cuStreamGetCtx(stream: Handle, context: *mut Handle);
                CUDA cuStreamQuery(stream: Handle);
                CUDA cuStreamIsCapturing(stream: Handle, status: *mut c_int);
                CUDA cuStreamGetCaptureInfo_v2(stream: Handle, status: *mut c_int, id: *mut u64, graph: *mut Handle, nodes: *mut *const Handle, count: *mut usize);
                CUDA cuThreadExchangeStreamCaptureMode(mode: *mut c_int);
                CUDA cuEventCreate(event: *mut Handle, flags: c_uint);
                CUDA cuEventDestroy_v2(event: Handle);
                CUDA cuEventRecord(event: Handle, stream: Handle);
                CUDA cuEventQuery(event: Handle);
                CUDA cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle);
                NVML nvmlDeviceGetUUID(device: Handle, uuid: *mut c_char, length: c_uint);
        }
    };
}

functions!(declare_all);
