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

use crate::entry::{self, Entry};
use crate::library::{self, REAL};
use crate::{object, table};

/// Replaces the C library's.
///
/// # Safety
///
/// As `dlsym(3)`.
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
#[cfg(target_arch = "x86_64")]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // The arguments are kept over the call of `pick`, and the stack is as it was at the jump.
    naked_asm!(
        "mov rdx, qword ptr [rsp]",
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {pick}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test rdx, rdx",
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
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
#[cfg(target_arch = "aarch64")]
pub unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // The arguments are kept over the call of `pick`, and the stack is as it was at the jump.
    naked_asm!(
        "stp x29, x30, [sp, #-32]!",
        "stp x0, x1, [sp, #16]",
        "mov x2, x30",
        "bl {pick}",
        "mov x9, x0",
        "mov x10, x1",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "cbz x10, 22f",
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

/// What `dlsym` returns; in two registers.
#[repr(C)]
struct Answer {
    function: *mut c_void,
    /// 0: the C library has to answer.
    known: usize,
}

impl Answer {
    const OF_THE_C_LIBRARY: Self = Self { function: ptr::null_mut(), known: 0 };

    fn is(function: *mut c_void) -> Self {
        Self { function, known: 1 }
    }
}

/// The answer for a name, which `caller` asks for. Afterwards [`REAL`] is known.
unsafe extern "C" fn pick(handle: *mut c_void, name: *const c_char, caller: *const c_void) -> Answer {
    library::dlsym();
    if name.is_null() {
        return Answer::OF_THE_C_LIBRARY;
    }
    // SAFETY: the caller of `dlsym` passes a C string.
    let name = unsafe { CStr::from_ptr(name) };
    if !matches!(name.to_bytes(), [b'c', b'u', ..] | [b'n', b'v', b'm', b'l', ..]) {
        return Answer::OF_THE_C_LIBRARY;
    }
    let Some(entry) = entry::find(table::entries(), name) else { return Answer::OF_THE_C_LIBRARY };
    // a driver that loads another one: the limiter calls it, and it has to reach that other one
    if entry.driver.is_beside(caller) {
        return Answer::OF_THE_C_LIBRARY;
    }
    if handle == libc::RTLD_NEXT {
        return of_the_program(entry);
    }
    // the limiter's namespace is the program's
    let program = library::program();
    let handle = if handle == libc::RTLD_DEFAULT { program } else { handle };
    let found = library::in_library(handle, name);
    if found.is_null() {
        return Answer::OF_THE_C_LIBRARY;
    }
    if found == entry.hook {
        return of_the_program(entry);
    }
    // the program's own, under a name of the driver's
    if object::is_variable(found) || object::of(found).is_some_and(object::Object::is_program) {
        return Answer::is(found);
    }
    // another's that comes before the limiter, and calls on
    if handle == program && !entry.driver.is_beside(found) {
        return Answer::is(found);
    }
    entry.driver.learn(found);
    Answer::is(entry.hook)
}

/// The answer where the limiter's own function is in the way of a search through the whole program. It is not offered
/// where the driver is not loaded or does not have the function.
fn of_the_program(entry: &Entry) -> Answer {
    if entry.driver.is_loaded() {
        return Answer::is(entry.hook);
    }
    // what there is behind the limiter, as a rule nothing
    Answer::is(library::in_library(libc::RTLD_NEXT, entry.driver.name()))
}
