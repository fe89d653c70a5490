//! A tenant's program in Rust, which uses the driver as the CUDA bindings for Rust do: it opens the library, looks up
//! the functions once, and shares the GPU's context between threads. It takes memory in pieces of 2 MiB until there is
//! none, gives it back, and repeats that. The tests run it in a container.
//!
//! Prints the GPU's size, the free memory, and for each round what all threads together got and the last status.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use libloading::Library;

const PIECE: usize = 2 << 20;
const THREADS: usize = 4;

type Status = c_int;

/// The driver's functions that the program needs.
struct Driver {
    init: unsafe extern "C" fn(c_uint) -> Status,
    retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> Status,
    set_current: unsafe extern "C" fn(*mut c_void) -> Status,
    info: unsafe extern "C" fn(*mut usize, *mut usize) -> Status,
    alloc: unsafe extern "C" fn(*mut u64, usize) -> Status,
    free: unsafe extern "C" fn(u64) -> Status,
    _library: Library,
}

impl Driver {
    fn open() -> Result<Self, libloading::Error> {
        // SAFETY: the types are those of the driver's header, and the library stays open as long as the functions
        unsafe {
            let library = Library::new("libcuda.so.1")?;
            Ok(Self {
                init: *library.get(b"cuInit\0")?,
                retain: *library.get(b"cuDevicePrimaryCtxRetain\0")?,
                set_current: *library.get(b"cuCtxSetCurrent\0")?,
                info: *library.get(b"cuMemGetInfo_v2\0")?,
                alloc: *library.get(b"cuMemAlloc_v2\0")?,
                free: *library.get(b"cuMemFree_v2\0")?,
                _library: library,
            })
        }
    }
}

/// A CUDA context, which threads may share.
#[derive(Clone, Copy)]
struct Context(*mut c_void);

// SAFETY: the driver's contexts may be used from any thread
unsafe impl Sync for Context {}

impl Context {
    fn enter(self, driver: &Driver) -> Status {
        // SAFETY: the driver made the context, and the program never destroys it
        unsafe { (driver.set_current)(self.0) }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let driver = Driver::open()?;
    let mut context = Context(std::ptr::null_mut());
    // SAFETY: plain calls; the memory that they write to lives on this stack
    let status = unsafe { (driver.init)(0) };
    // SAFETY: as above
    let status = if status == 0 { unsafe { (driver.retain)(&raw mut context.0, 0) } } else { status };
    if status != 0 {
        println!("start {status}");
        return Ok(());
    }
    context.enter(&driver);
    let (mut free, mut total) = (0, 0);
    // SAFETY: as above
    unsafe { (driver.info)(&raw mut free, &raw mut total) };
    println!("total {total}\nfree {free}");
    for _ in 0..2 {
        let (taken, last) = (AtomicUsize::new(0), AtomicI32::new(0));
        // pieces are given back only when no thread gets another one
        let full = std::sync::Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    context.enter(&driver);
                    let mut held = Vec::new();
                    loop {
                        let mut piece = 0;
                        // SAFETY: as above
                        let status = unsafe { (driver.alloc)(&raw mut piece, PIECE) };
                        if status != 0 {
                            last.store(status, Ordering::Relaxed);
                            break;
                        }
                        held.push(piece);
                        taken.fetch_add(PIECE, Ordering::Relaxed);
                    }
                    full.wait();
                    for piece in held {
                        // SAFETY: it was allocated above and is given back once
                        unsafe { (driver.free)(piece) };
                    }
                });
            }
        });
        println!("taken {} {}", taken.load(Ordering::Relaxed), last.load(Ordering::Relaxed));
    }
    Ok(())
}
