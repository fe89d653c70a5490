//! `dlsym`: programs that look up the driver's functions by name get the limiter's instead.
//!
//! A program that is linked with `libcuda.so.1` finds the limiter's functions by itself, since the limiter is loaded
//! first. A program that opens the library and looks up a symbol in it (the CUDA runtime does) would bypass them; so
//! the limiter replaces `dlsym` too. For every name that the limiter does not replace, it *jumps* to the C library's
//! own `dlsym`: that one looks at its return address to find its caller (`RTLD_NEXT`, symbols of the caller's
//! namespace), so the limiter must not be on the stack.

use std::arch::naked_asm;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use crate::library::{self, REAL};
use crate::{entry, table};

/// Replaces the C library's.
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

/// Replaces the C library's.
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

/// The limiter's function for a name; null where the C library has to answer. Afterwards [`REAL`] is known.
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
    // SAFETY: the C library's `dlsym` with the caller's own arguments. Neither handle that depends on the caller
    // matters here: `RTLD_NEXT` is excluded above, and for `RTLD_DEFAULT` the limiter's namespace is the program's.
    let found = unsafe { real(handle, name.as_ptr()) };
    // the limiter does not offer functions that this driver does not have
    if found.is_null() {
        return ptr::null_mut();
    }
    if found != entry.hook {
        entry.driver.learn(found);
    }
    entry.hook
}
