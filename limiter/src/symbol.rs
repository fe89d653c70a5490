//! How programs reach the driver by name, and get the limiter instead: `dlsym`.
//!
//! A program that is linked with `libcuda.so.1` finds the limiter's functions by itself, since the limiter is loaded before.
//! One that opens the library and asks for a symbol of it (the CUDA runtime does) would go past them; so `dlsym` is
//! one of the limiter's functions too. For every name that is none of the driver's, and for what the limiter does not
//! stand in for, it *jumps* to the C library's own: that one looks at its return address to know who asks
//! (`RTLD_NEXT`, symbols of the caller's namespace), so the limiter must not be seen on the stack.

use std::arch::naked_asm;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use crate::library::{self, REAL};
use crate::{entry, table};

/// In the place of the C library's.
///
/// # Safety
///
/// As `dlsym(3)`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
#[cfg(target_arch = "x86_64")]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // The arguments are kept over the call of `pick`, and the stack is as it was at the jump.
    naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {pick}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rax, rax",
        "jz 22f",
        "ret",
        "22:",
        "mov rax, qword ptr [rip + {real}]",
        "jmp rax",
        pick = sym pick,
        real = sym REAL,
    )
}

/// In the place of the C library's.
///
/// # Safety
///
/// As `dlsym(3)`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
#[cfg(target_arch = "aarch64")]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // The arguments are kept over the call of `pick`, and the stack is as it was at the jump.
    naked_asm!(
        "stp x29, x30, [sp, #-32]!",
        "stp x0, x1, [sp, #16]",
        "bl {pick}",
        "mov x9, x0",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "cbz x9, 22f",
        "mov x0, x9",
        "ret",
        "22:",
        "adrp x9, {real}",
        "ldr x9, [x9, :lo12:{real}]",
        "br x9",
        pick = sym pick,
        real = sym REAL,
    )
}

/// The limiter's function for a name, or null: then the C library is to answer. Afterwards [`REAL`] is known.
unsafe extern "C" fn pick(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    let real = library::dlsym();
    if name.is_null() || handle == libc::RTLD_NEXT {
        return ptr::null_mut();
    }
    // SAFETY: the caller of `dlsym` passes a C string.
    let name = unsafe { CStr::from_ptr(name) };
    if !matches!(name.to_bytes(), [b'c', b'u', ..] | [b'n', b'v', b'm', b'l', ..]) {
        return ptr::null_mut();
    }
    let Some(entry) = entry::find(table::entries(), name) else { return ptr::null_mut() };
    // SAFETY: the C library's `dlsym` with the caller's own arguments. It is none of the two handles that depend on who calls:
    // `RTLD_NEXT` is excluded above, and for `RTLD_DEFAULT` the limiter's namespace is the program's.
    let found = unsafe { real(handle, name.as_ptr()) };
    // what this driver does not have, the limiter does not have either
    if found.is_null() {
        return ptr::null_mut();
    }
    if found != entry.hook {
        entry.driver.learn(found);
    }
    entry.hook
}
