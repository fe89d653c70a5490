//! Files that are the shared memory of several processes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;

/// Makes a file of zeros that holds a `T`.
pub fn create<T>(path: &Path) -> io::Result<()> {
    File::create(path)?.set_len(size_of::<T>() as u64)
}

/// Maps the file for as long as the process lives.
///
/// # Safety
///
/// `T` is integers and atomic integers only: any bytes are a value.
pub unsafe fn open<T>(path: &Path) -> io::Result<(&'static T, File)> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.len() != size_of::<T>() as u64 {
        return Err(io::Error::other(format!("{}: not of the expected length", path.display())));
    }
    // SAFETY: a new mapping of a file of that length, which is never unmapped.
    let address = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(ptr::null_mut(), size_of::<T>(), access, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned, long enough, and any bytes are a `T`.
    Ok((unsafe { &*address.cast::<T>() }, file))
}
