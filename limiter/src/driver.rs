//! The driver's own functions, found when they are first needed.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::abi::{Device, Handle, NOT_FOUND, Pointer, Status, Uuid};

/// A library of the driver.
pub struct Library {
    name: &'static CStr,
    handle: AtomicPtr<c_void>,
}

/// The CUDA driver.
pub static CUDA: Library = Library::new(c"libcuda.so.1");
/// The management library.
pub static NVML: Library = Library::new(c"libnvidia-ml.so.1");

impl Library {
    const fn new(name: &'static CStr) -> Self {
        Self { name, handle: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The loader's handle; null where there is no such library. The one that the program has loaded, if it has.
    fn handle(&self) -> Handle {
        let known = self.handle.load(Ordering::Acquire);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a C string that lives for ever. Loading runs the driver's initialisers, as the
        // program would have done.
        let found = unsafe {
            let loaded = libc::dlopen(self.name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if loaded.is_null() { libc::dlopen(self.name.as_ptr(), libc::RTLD_LAZY) } else { loaded }
        };
        self.handle.store(found, Ordering::Release);
        found
    }
}

/// In the place of the address of a function that the library does not have.
const ABSENT: usize = 1;

/// One function of a library.
pub struct Function {
    library: &'static Library,
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Function {
    /// Not looked for yet.
    pub const fn new(library: &'static Library, name: &'static CStr) -> Self {
        Self { library, name, address: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Its name.
    pub fn name(&self) -> &'static CStr {
        self.name
    }

    /// Its address; null where this driver does not have it.
    pub fn address(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Relaxed);
        match known.addr() {
            0 => self.find(),
            ABSENT => ptr::null_mut(),
            _ => known,
        }
    }

    #[cold]
    fn find(&self) -> *mut c_void {
        let handle = self.library.handle();
        if handle.is_null() {
            return ptr::null_mut();
        }
        let found = crate::symbol::in_library(handle, self.name);
        let kept = if found.is_null() { ptr::without_provenance_mut(ABSENT) } else { found };
        self.address.store(kept, Ordering::Relaxed);
        found
    }

    /// Takes an address that the program was given, where the library itself cannot be found by its name.
    pub fn learn(&self, address: *mut c_void) {
        if self.address().is_null() {
            self.address.store(address, Ordering::Relaxed);
        }
    }
}

/// Whether the CUDA driver has a function, by name.
pub fn in_cuda(name: &CStr) -> *mut c_void {
    let handle = CUDA.handle();
    if handle.is_null() { ptr::null_mut() } else { crate::symbol::in_library(handle, name) }
}

/// Functions that the limiter calls and does not stand in for. A function that this driver does not have says
/// `CUDA_ERROR_NOT_FOUND`.
macro_rules! calls {
    ($($library:ident fn $name:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            /// The driver's function of this name.
            ///
            /// # Safety
            ///
            /// As the driver's documentation says of it.
            #[allow(non_snake_case, reason = "the driver's own name")]
            pub unsafe fn $name($($argument: $type),*) -> Status {
                static FUNCTION: Function = {
                    const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => c"",
                    };
                    Function::new(&$library, NAME)
                };
                let address = FUNCTION.address();
                if address.is_null() {
                    return NOT_FOUND;
                }
                // SAFETY: the driver's function of this name has this signature.
                let function: unsafe extern "C" fn($($type),*) -> Status = unsafe { mem::transmute(address) };
                // SAFETY: the caller keeps what the driver asks for.
                unsafe { function($($argument),*) }
            }
        )*
    };
}

calls! {
    CUDA fn cuDeviceGetCount(count: *mut c_int);
    CUDA fn cuDeviceGetUuid(uuid: *mut Uuid, device: Device);
    CUDA fn cuDeviceGetUuid_v2(uuid: *mut Uuid, device: Device);
    CUDA fn cuDevicePrimaryCtxGetState(device: Device, flags: *mut c_uint, active: *mut c_int);
    CUDA fn cuDeviceGetMemPool(pool: *mut Handle, device: Device);
    CUDA fn cuDeviceGetGraphMemAttribute(device: Device, attribute: c_int, value: *mut u64);
    CUDA fn cuCtxGetCurrent(context: *mut Handle);
    CUDA fn cuCtxGetDevice(device: *mut Device);
    CUDA fn cuMemPoolGetAttribute(pool: Handle, attribute: c_int, value: *mut u64);
    CUDA fn cuMemGetAddressRange_v2(base: *mut Pointer, bytes: *mut usize, pointer: Pointer);
    CUDA fn cuStreamIsCapturing(stream: Handle, status: *mut c_int);
    CUDA fn cuStreamGetCaptureInfo_v2(stream: Handle, status: *mut c_int, id: *mut u64, graph: *mut Handle, nodes: *mut *const Handle, count: *mut usize);
    CUDA fn cuThreadExchangeStreamCaptureMode(mode: *mut c_int);
    CUDA fn cuEventCreate(event: *mut Handle, flags: c_uint);
    CUDA fn cuEventRecord(event: Handle, stream: Handle);
    CUDA fn cuEventQuery(event: Handle);
    CUDA fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle);
    NVML fn nvmlDeviceGetUUID(device: Handle, uuid: *mut c_char, length: c_uint);
}
