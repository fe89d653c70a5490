//! What is done when the limiter is loaded: nothing, unless the C library or the driver was put before it.
//!
//! glibc searches the libraries of `LD_PRELOAD` before those of `/etc/ld.so.preload`. With its own `libc.so.6` in there, it
//! finds its own `dlsym` first, and with the driver's library, the driver's functions. Neither needs to be in
//! `LD_PRELOAD` for the program to work, so such a program is started again without them, before its `main`.
//! Other libraries stay: a tool that comes before the limiter reaches the driver by way of it.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::{fs, ptr};

use crate::abi::Handle;
use crate::library::{self, CUDA, Library, NVML};
use crate::{object, table};

type Strings = *const *const c_char;

/// glibc gives such functions what it gives `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static START: unsafe extern "C" fn(c_int, Strings, Strings) = start;

const PRELOAD: &[u8] = b"LD_PRELOAD=";

unsafe extern "C" fn start(_: c_int, arguments: Strings, environment: Strings) {
    // SAFETY: the loader's list of C strings, which ends with null.
    let variables = unsafe { list(environment) };
    let Some(value) = variables.iter().find_map(|variable| variable.to_bytes().strip_prefix(PRELOAD)) else {
        return;
    };
    // SAFETY: no pointers. Without a base the loader itself was started, with the program as its argument.
    let (base, secure) = unsafe { (libc::getauxval(libc::AT_BASE), libc::getauxval(libc::AT_SECURE)) };
    if value.is_empty() || base == 0 || secure != 0 {
        return;
    }
    let ahead = ahead();
    if ahead.is_empty() {
        return;
    }
    let others: Vec<&CStr> =
        variables.iter().filter(|variable| !variable.to_bytes().starts_with(PRELOAD)).copied().collect();
    // SAFETY: the loader's list, as it gave it to this function.
    unsafe { again(arguments, &others, &without(value, &ahead)) };
}

/// The C library and the driver's, of those that are searched before the limiter.
fn ahead() -> Vec<Handle> {
    let mut ahead = Vec::new();
    let real = library::dlsym() as *mut c_void;
    if library::in_library(library::program(), c"dlsym") == real {
        ahead.extend(object::of(real).map(object::Object::handle));
    }
    let drivers: [(&Library, &CStr); 2] = [(&CUDA, c"cuInit"), (&NVML, c"nvmlDeviceGetMemoryInfo")];
    for (driver, name) in drivers {
        let found = library::in_library(library::program(), name);
        let ours = crate::entry::find(table::entries(), name).is_some_and(|entry| entry.hook == found);
        if !ours
            && let Some(object) = object::of(found)
            && object.handle() == driver.loaded()
        {
            ahead.push(object.handle());
        }
    }
    ahead
}

/// The value of `LD_PRELOAD` without these libraries; empty where none is known by its name there.
fn without(value: &[u8], libraries: &[Handle]) -> Vec<u8> {
    let names: Vec<&[u8]> =
        value.split(|byte| matches!(byte, b':' | b' ')).filter(|name| !name.is_empty()).collect();
    let stays = |name: &&&[u8]| {
        let name = CString::new(**name).unwrap_or_default();
        // SAFETY: a C string; nothing is loaded, since all of them are.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        !libraries.contains(&handle)
    };
    let stay: Vec<&[u8]> = names.iter().filter(stays).copied().collect();
    if stay.len() == names.len() { Vec::new() } else { stay.join(&b':') }
}

/// Starts the program of this process again. Where that is not possible, it goes on, and the host sees it.
///
/// # Safety
///
/// `arguments` is a list of C strings that ends with null.
unsafe fn again(arguments: Strings, variables: &[&CStr], preload: &[u8]) {
    let Some(program) = program() else { return };
    let preload = CString::new([PRELOAD, preload].concat()).unwrap_or_default();
    let mut environment: Vec<*const c_char> = variables.iter().map(|variable| variable.as_ptr()).collect();
    if preload.as_bytes() != PRELOAD {
        environment.push(preload.as_ptr());
    }
    environment.push(ptr::null());
    // SAFETY: C strings and lists that end with null.
    unsafe { libc::execve(program.as_ptr(), arguments, environment.as_ptr()) };
}

/// The file of this process' program, under the name that it was started by where that is not a script's. The kernel
/// shows a process by that name.
fn program() -> Option<CString> {
    let file = fs::read_link("/proc/self/exe").ok()?;
    // SAFETY: no pointers; the kernel's C string, which lives as long as the process.
    let name = unsafe {
        let name = libc::getauxval(libc::AT_EXECFN) as *const c_char;
        (!name.is_null()).then(|| CStr::from_ptr(name))
    };
    let started = name.filter(|name| fs::canonicalize(OsStr::from_bytes(name.to_bytes())).is_ok_and(|n| n == file));
    started.map_or_else(|| CString::new(file.into_os_string().into_vec()).ok(), |name| Some(name.to_owned()))
}

/// # Safety
///
/// A list of C strings that ends with null, and lives as long as the process.
unsafe fn list(mut strings: Strings) -> Vec<&'static CStr> {
    let mut all = Vec::new();
    // SAFETY: the list goes on until null, by the caller's promise.
    while let Some(string) = unsafe { (!strings.is_null() && !(*strings).is_null()).then(|| *strings) } {
        // SAFETY: a C string of the list, by the caller's promise.
        all.push(unsafe { CStr::from_ptr(string) });
        // SAFETY: not its end.
        strings = unsafe { strings.add(1) };
    }
    all
}
