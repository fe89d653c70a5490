//! Programs that were compiled with the address sanitizer.

use std::ffi::{CStr, c_char};

/// The sanitizer asks for its options by this name. It starts no program that has another library before its own, although
/// one that replaces no function of the C library but `dlsym` does not disturb it. A program with options of its own comes first.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn __asan_default_options() -> *const c_char {
    const OPTIONS: &CStr = c"verify_asan_link_order=0";
    OPTIONS.as_ptr()
}
