//! An object of the host that graphs keep alive.

use std::ffi::c_void;

/// An object that is destroyed with its last reference: one that the program holds, or a graph.
pub struct User {
    object: usize,
    destroy: unsafe extern "C" fn(*mut c_void),
}

impl User {
    pub fn new(object: *mut c_void, destroy: unsafe extern "C" fn(*mut c_void)) -> Self {
        Self { object: object as usize, destroy }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        unsafe { (self.destroy)(self.object as *mut c_void) };
    }
}
