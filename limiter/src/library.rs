//! The driver's libraries and their functions, found when they are first needed, past the limiter's own.

use std::ffi::{CStr, c_char, c_void};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::abi::Handle;
use crate::object;

pub struct Library {
    name: &'static CStr,
    handle: AtomicPtr<c_void>,
}

pub static CUDA: Library = Library::new(c"libcuda.so.1");
pub static NVML: Library = Library::new(c"libnvidia-ml.so.1");

impl Library {
    const fn new(name: &'static CStr) -> Self {
        Self { name, handle: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The loader's handle; null where there is no such library. A library that the program has loaded is reused.
    fn handle(&self) -> Handle {
        let known = self.handle.load(Ordering::Acquire);
        match known.addr() {
            ABSENT => return ptr::null_mut(),
            0 => {}
            _ => return known,
        }
        let mut found = self.loaded();
        if found.is_null() {
            // SAFETY: the name is a static C string. Loading runs the driver's initialisers, as the program would have
            // done.
            found = unsafe { libc::dlopen(self.name.as_ptr(), libc::RTLD_LAZY) };
        }
        // a search of all folders that found nothing is not made again for each function
        let kept = if found.is_null() { ptr::without_provenance_mut(ABSENT) } else { found };
        // another thread may have found it since
        let _ = self.handle.compare_exchange(ptr::null_mut(), kept, Ordering::AcqRel, Ordering::Acquire);
        found
    }

    /// The loader's handle where the program has loaded the library.
    pub fn loaded(&self) -> Handle {
        let known = self.handle.load(Ordering::Acquire);
        if known.addr() > ABSENT {
            return known;
        }
        // SAFETY: the name is a static C string, and nothing is loaded.
        let found = unsafe { libc::dlopen(self.name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if !found.is_null() {
            self.handle.store(found, Ordering::Release);
        }
        found
    }

    /// Takes the library that a function was found in for this one, where the program has found it by another way than
    /// its name: as a file, or in another namespace.
    fn adopt(&self, function: *mut c_void) {
        if self.loaded().is_null()
            && let Some(object) = object::of(function)
        {
            self.handle.store(object.keep(), Ordering::Release);
        }
    }
}

/// Stands for the address of a function that the library does not have, and for a library that is not there.
const ABSENT: usize = 1;

/// One function of a library.
pub struct Function {
    library: &'static Library,
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Function {
    pub const fn new(library: &'static Library, name: &'static CStr) -> Self {
        Self { library, name, address: AtomicPtr::new(ptr::null_mut()) }
    }

    pub fn name(&self) -> &'static CStr {
        self.name
    }

    /// Null where this driver does not have the function.
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
        let found = in_library(handle, self.name);
        let kept = if found.is_null() { ptr::without_provenance_mut(ABSENT) } else { found };
        self.address.store(kept, Ordering::Relaxed);
        found
    }

    /// Whether the program has loaded the library and could call the function.
    pub fn is_loaded(&self) -> bool {
        !self.library.loaded().is_null() && !self.address().is_null()
    }

    /// Whether this address is in the library itself.
    pub fn is_beside(&self, address: *const c_void) -> bool {
        let library = self.library.loaded();
        !library.is_null() && object::of(address).is_some_and(|object| object.handle() == library)
    }

    pub fn is_of_cuda(&self) -> bool {
        ptr::eq(self.library, &CUDA)
    }

    /// Notes an address that the program was given, where the library itself cannot be found by its name.
    pub fn learn(&self, address: *mut c_void) {
        self.library.adopt(address);
        if self.address().is_null() {
            self.address.store(address, Ordering::Relaxed);
        }
    }
}

/// The CUDA driver's function of this name; null where there is none.
pub fn in_cuda(name: &CStr) -> *mut c_void {
    let handle = CUDA.handle();
    if handle.is_null() { ptr::null_mut() } else { in_library(handle, name) }
}

/// The program's handle, which searches all of its libraries in their order. `RTLD_DEFAULT` does not do that here, since
/// this library, which is linked with `-Bsymbolic`, is searched first for itself.
pub fn program() -> Handle {
    // SAFETY: without a name this returns the program's own handle.
    unsafe { libc::dlopen(ptr::null(), libc::RTLD_LAZY) }
}

/// The C library's `dlsym`; null until [`dlsym`] was called.
pub static REAL: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

type Dlsym = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void;

/// Looks up a symbol of a library, past the limiter.
pub fn in_library(handle: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: the handle is the loader's and the name a C string.
    unsafe { dlsym()(handle, name.as_ptr()) }
}

/// The C library's `dlsym`, past the limiter's.
pub fn dlsym() -> Dlsym {
    let mut address = REAL.load(Ordering::Acquire);
    if address.is_null() {
        // `dlvsym` is not replaced, so it finds the C library's `dlsym`; also where that is before the limiter, whose
        // own has no version. Versions: glibc's first for each architecture, and the one since 2.34
        let versions = [c"GLIBC_2.2.5", c"GLIBC_2.17", c"GLIBC_2.34"];
        for (from, version) in [libc::RTLD_NEXT, libc::RTLD_DEFAULT].iter().flat_map(|f| versions.map(|v| (*f, v)))
        {
            // SAFETY: all are static C strings.
            address = unsafe { libc::dlvsym(from, c"dlsym".as_ptr(), version.as_ptr()) };
            if !address.is_null() {
                break;
            }
        }
        if address.is_null() {
            // another C library: symbols cannot be found at all
            address = nothing as Dlsym as *mut c_void;
        }
        REAL.store(address, Ordering::Release);
    }
    // SAFETY: both candidates are functions with this signature.
    unsafe { mem::transmute::<*mut c_void, Dlsym>(address) }
}

unsafe extern "C" fn nothing(_: *mut c_void, _: *const c_char) -> *mut c_void {
    ptr::null_mut()
}
