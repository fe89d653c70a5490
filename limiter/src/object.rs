//! What the loader knows of the programs and libraries in this process.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use crate::abi::Handle;

/// `RTLD_DL_SYMENT`, `RTLD_DL_LINKMAP` of `dladdr1(3)`.
const SYMBOL: c_int = 1;
const LINK_MAP: c_int = 2;
/// The type of a symbol that is a variable.
const STT_OBJECT: u8 = 1;

/// A program or library that the loader has loaded.
#[derive(Clone, Copy)]
pub struct Object(*mut LinkMap);

/// The beginning of glibc's `struct link_map`, which `link.h` makes public.
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const std::ffi::c_char,
}

/// The one that an address is in.
pub fn of(address: *const c_void) -> Option<Object> {
    let map = about::<LinkMap>(address, LINK_MAP)?;
    Some(Object(map))
}

/// Whether an address is that of a variable.
pub fn is_variable(address: *const c_void) -> bool {
    let Some(symbol) = about::<libc::Elf64_Sym>(address, SYMBOL) else { return false };
    // SAFETY: an entry of the symbol table of a library that the caller has an address in.
    unsafe { (*symbol).st_info & 0xf == STT_OBJECT }
}

fn about<T>(address: *const c_void, what: c_int) -> Option<*mut T> {
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    let mut found: *mut c_void = ptr::null_mut();
    // SAFETY: both are locals of the types that the function writes; any address may be asked for.
    let known = unsafe { libc::dladdr1(address, info.as_mut_ptr(), &raw mut found, what) };
    (known != 0 && !found.is_null()).then(|| found.cast())
}

impl Object {
    /// What `dlopen` would return for it: glibc's handles are its link maps.
    pub fn handle(self) -> Handle {
        self.0.cast()
    }

    /// Whether this is the program itself, which the loader knows by no name.
    pub fn is_program(self) -> bool {
        // SAFETY: the loader's entry for something loaded, whose name is a C string.
        unsafe { (*self.0).name.is_null() || *(*self.0).name == 0 }
    }

    /// A handle of its own, so that it stays loaded.
    pub fn keep(self) -> Handle {
        let mut namespace: libc::Lmid_t = libc::LM_ID_BASE;
        // SAFETY: a handle of the loader, which knows its namespace and its name; nothing is loaded.
        let kept = unsafe {
            libc::dlinfo(self.handle(), libc::RTLD_DI_LMID, (&raw mut namespace).cast());
            libc::dlmopen(namespace, (*self.0).name, libc::RTLD_LAZY | libc::RTLD_NOLOAD)
        };
        if kept.is_null() { self.handle() } else { kept }
    }
}
