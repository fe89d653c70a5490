//! Which of the driver's functions the limiter stands in for, and how a program gets to them.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kerf_limiter_contract::state::Flags;

use crate::abi::*;
use crate::driver::{self, Function};
use crate::hook::{array, capture, context, entry, graph, info, launch, linear, nvml, physical, pool};
use crate::message::{self, Topic};
use crate::process;

/// One function that is stood in for.
pub struct Entry {
    /// The limiter's.
    pub hook: *mut c_void,
    /// The driver's.
    pub driver: &'static Function,
    /// The version of CUDA that brought it, as `cuGetProcAddress` counts.
    since: c_int,
}

/// Calls the driver's function behind one of the limiter's.
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => { $crate::table::real::$name($($argument),*) };
}
pub(crate) use call;

/// For each line: the driver's function (its address is looked for once), the limiter's (exported under the same name), and
/// the entry that joins them.
macro_rules! table {
    ($($library:ident $since:literal $name:ident($($argument:ident: $type:ty),*) = $body:path;)*) => {
        /// The driver's functions.
        #[allow(
            non_snake_case,
            non_upper_case_globals,
            clippy::too_many_arguments,
            reason = "the driver's own"
        )]
        pub mod real {
            use super::*;

            $(
                /// The driver's function of this name.
                ///
                /// # Safety
                ///
                /// As the driver's documentation says of it.
                pub unsafe fn $name($($argument: $type),*) -> Status {
                    let address = functions::$name.address();
                    if address.is_null() {
                        return NOT_FOUND;
                    }
                    // SAFETY: the driver's function of this name has this signature.
                    let function: unsafe extern "C" fn($($type),*) -> Status = unsafe { mem::transmute(address) };
                    // SAFETY: the caller keeps what the driver asks for.
                    unsafe { function($($argument),*) }
                }
            )*

            pub(super) mod functions {
                use super::*;
                $(
                    pub static $name: Function = {
                        const NAME: &CStr =
                            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                                Ok(name) => name,
                                Err(_) => c"",
                            };
                        Function::new(&driver::$library, NAME)
                    };
                )*
            }
        }

        /// The limiter's functions, under the driver's names.
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the driver's own")]
        pub mod exported {
            use super::*;

            $(
                /// In the place of the driver's function of this name.
                ///
                /// # Safety
                ///
                /// As the driver's documentation says of it.
                #[cfg_attr(not(test), unsafe(no_mangle))]
                pub unsafe extern "C" fn $name($($argument: $type),*) -> Status {
                    // SAFETY: the program calls this as it would call the driver.
                    guard(stringify!($name), || unsafe { $body(real::$name, $($argument),*) })
                }
            )*
        }

        fn entries() -> &'static [Entry] {
            static ENTRIES: Entries = Entries(&[$(
                Entry {
                    hook: exported::$name as *mut c_void,
                    driver: &real::functions::$name,
                    since: $since,
                },
            )*]);
            ENTRIES.0
        }
    };
}

struct Entries(&'static [Entry]);

// SAFETY: the pointers are addresses of functions, which never change.
unsafe impl Sync for Entries {}

table! {
    CUDA 2000 cuInit(flags: c_uint) = context::init;
    CUDA 11030 cuGetProcAddress(symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: c_ulonglong) = entry::get;
    CUDA 12000 cuGetProcAddress_v2(symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: c_ulonglong, status: *mut c_int) = entry::get2;

    CUDA 2000 cuCtxCreate(context: *mut Handle, flags: c_uint, device: Device) = context::create;
    CUDA 3020 cuCtxCreate_v2(context: *mut Handle, flags: c_uint, device: Device) = context::create;
    CUDA 11040 cuCtxCreate_v3(context: *mut Handle, parameters: *mut c_void, count: c_int, flags: c_uint, device: Device) = context::create3;
    CUDA 12050 cuCtxCreate_v4(context: *mut Handle, parameters: *mut c_void, flags: c_uint, device: Device) = context::create4;
    CUDA 2000 cuCtxDestroy(context: Handle) = context::destroy;
    CUDA 4000 cuCtxDestroy_v2(context: Handle) = context::destroy;
    CUDA 7000 cuDevicePrimaryCtxRetain(context: *mut Handle, device: Device) = context::retain;
    CUDA 7000 cuDevicePrimaryCtxRelease(device: Device) = context::release;
    CUDA 11000 cuDevicePrimaryCtxRelease_v2(device: Device) = context::release;
    CUDA 7000 cuDevicePrimaryCtxReset(device: Device) = context::release;
    CUDA 11000 cuDevicePrimaryCtxReset_v2(device: Device) = context::release;
    CUDA 3010 cuCtxSetLimit(limit: c_int, value: usize) = context::set_limit;
    CUDA 2000 cuCtxSynchronize() = context::synchronize;
    CUDA 13000 cuCtxSynchronize_v2(context: Handle) = context::synchronize2;

    CUDA 2000 cuMemGetInfo(free: *mut c_uint, total: *mut c_uint) = info::old_memory;
    CUDA 3020 cuMemGetInfo_v2(free: *mut usize, total: *mut usize) = info::memory;
    CUDA 2000 cuDeviceTotalMem(bytes: *mut c_uint, device: Device) = info::old_total;
    CUDA 3020 cuDeviceTotalMem_v2(bytes: *mut usize, device: Device) = info::total;
    NVML 0 nvmlDeviceGetMemoryInfo(device: Handle, memory: *mut NvmlMemory) = nvml::memory;
    NVML 0 nvmlDeviceGetMemoryInfo_v2(device: Handle, memory: *mut NvmlMemory2) = nvml::memory2;

    CUDA 2000 cuMemAlloc(pointer: *mut c_uint, bytes: c_uint) = linear::old_alloc;
    CUDA 3020 cuMemAlloc_v2(pointer: *mut Pointer, bytes: usize) = linear::alloc;
    CUDA 2000 cuMemAllocPitch(pointer: *mut c_uint, pitch: *mut c_uint, width: c_uint, height: c_uint, element: c_uint) = linear::old_pitch;
    CUDA 3020 cuMemAllocPitch_v2(pointer: *mut Pointer, pitch: *mut usize, width: usize, height: usize, element: c_uint) = linear::pitch;
    CUDA 6000 cuMemAllocManaged(pointer: *mut Pointer, bytes: usize, flags: c_uint) = linear::managed;
    CUDA 2000 cuMemFree(pointer: c_uint) = linear::old_free;
    CUDA 3020 cuMemFree_v2(pointer: Pointer) = linear::free;
    CUDA 4010 cuIpcOpenMemHandle(pointer: *mut Pointer, handle: IpcHandle, flags: c_uint) = linear::open;
    CUDA 11000 cuIpcOpenMemHandle_v2(pointer: *mut Pointer, handle: IpcHandle, flags: c_uint) = linear::open;
    CUDA 4010 cuIpcCloseMemHandle(pointer: Pointer) = linear::free;
    CUDA 10000 cuImportExternalMemory(memory: *mut Handle, description: *const ExternalMemory) = linear::import;
    CUDA 10000 cuDestroyExternalMemory(memory: Handle) = linear::destroy_import;

    CUDA 2000 cuArrayCreate(array: *mut Handle, description: *const c_void) = array::old_create;
    CUDA 3020 cuArrayCreate_v2(array: *mut Handle, description: *const ArrayDescriptor) = array::create;
    CUDA 2000 cuArray3DCreate(array: *mut Handle, description: *const c_void) = array::old_create;
    CUDA 3020 cuArray3DCreate_v2(array: *mut Handle, description: *const Array3dDescriptor) = array::create3d;
    CUDA 2000 cuArrayDestroy(array: Handle) = array::destroy;
    CUDA 5000 cuMipmappedArrayCreate(array: *mut Handle, description: *const Array3dDescriptor, levels: c_uint) = array::mipmapped;
    CUDA 5000 cuMipmappedArrayDestroy(array: Handle) = array::destroy;

    CUDA 10020 cuMemCreate(handle: *mut c_ulonglong, bytes: usize, properties: *const Properties, flags: c_ulonglong) = physical::create;
    CUDA 10020 cuMemRelease(handle: c_ulonglong) = physical::release;
    CUDA 10020 cuMemMap(pointer: Pointer, bytes: usize, offset: usize, handle: c_ulonglong, flags: c_ulonglong) = physical::map;
    CUDA 10020 cuMemUnmap(pointer: Pointer, bytes: usize) = physical::unmap;
    CUDA 11000 cuMemRetainAllocationHandle(handle: *mut c_ulonglong, address: *mut c_void) = physical::retain;
    CUDA 10020 cuMemExportToShareableHandle(shared: *mut c_void, handle: c_ulonglong, kind: c_int, flags: c_ulonglong) = physical::export;
    CUDA 10020 cuMemImportFromShareableHandle(handle: *mut c_ulonglong, shared: *mut c_void, kind: c_int) = physical::import;
    CUDA 11010 cuMemMapArrayAsync(maps: *mut ArrayMap, count: c_uint, stream: Handle) = physical::map_arrays;
    CUDA 11010 cuMemMapArrayAsync_ptsz(maps: *mut ArrayMap, count: c_uint, stream: Handle) = physical::map_arrays;

    CUDA 11020 cuMemAllocAsync(pointer: *mut Pointer, bytes: usize, stream: Handle) = pool::alloc::<false>;
    CUDA 11020 cuMemAllocAsync_ptsz(pointer: *mut Pointer, bytes: usize, stream: Handle) = pool::alloc::<true>;
    CUDA 11020 cuMemAllocFromPoolAsync(pointer: *mut Pointer, bytes: usize, pool: Handle, stream: Handle) = pool::alloc_from::<false>;
    CUDA 11020 cuMemAllocFromPoolAsync_ptsz(pointer: *mut Pointer, bytes: usize, pool: Handle, stream: Handle) = pool::alloc_from::<true>;
    CUDA 11020 cuMemFreeAsync(pointer: Pointer, stream: Handle) = pool::free;
    CUDA 11020 cuMemFreeAsync_ptsz(pointer: Pointer, stream: Handle) = pool::free;
    CUDA 11020 cuMemPoolCreate(pool: *mut Handle, properties: *const Properties) = pool::create;
    CUDA 11020 cuMemPoolDestroy(pool: Handle) = pool::destroy;
    CUDA 11020 cuMemPoolTrimTo(pool: Handle, keep: usize) = pool::trim;
    CUDA 11020 cuMemPoolImportPointer(pointer: *mut Pointer, pool: Handle, data: *mut c_void) = pool::import_pointer;

    CUDA 11040 cuGraphAddMemAllocNode(node: *mut Handle, graph: Handle, after: *const Handle, count: usize, parameters: *mut AllocNode) = graph::add_alloc;
    CUDA 12020 cuGraphAddNode(node: *mut Handle, graph: Handle, after: *const Handle, count: usize, parameters: *mut NodeParams) = graph::add;
    CUDA 12030 cuGraphAddNode_v2(node: *mut Handle, graph: Handle, after: *const Handle, edges: *const c_void, count: usize, parameters: *mut NodeParams) = graph::add2;
    CUDA 13040 cuGraphAddNode_v3(node: *mut Handle, graph: Handle, after: *const Handle, edges: *const c_void, count: usize, parameters: *mut NodeParams) = graph::add2;
    CUDA 10000 cuGraphAddChildGraphNode(node: *mut Handle, graph: Handle, after: *const Handle, count: usize, child: Handle) = graph::add_child;
    CUDA 10000 cuGraphClone(clone: *mut Handle, graph: Handle) = graph::clone;
    CUDA 10000 cuGraphDestroy(graph: Handle) = graph::destroy;
    CUDA 10000 cuGraphInstantiate(executable: *mut Handle, graph: Handle, node: *mut Handle, log: *mut c_char, length: usize) = graph::instantiate;
    CUDA 11000 cuGraphInstantiate_v2(executable: *mut Handle, graph: Handle, node: *mut Handle, log: *mut c_char, length: usize) = graph::instantiate;
    CUDA 11040 cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, flags: c_ulonglong) = graph::instantiate_flags;
    CUDA 12000 cuGraphInstantiateWithParams(executable: *mut Handle, graph: Handle, parameters: *mut c_void) = graph::instantiate_params;
    CUDA 12000 cuGraphInstantiateWithParams_ptsz(executable: *mut Handle, graph: Handle, parameters: *mut c_void) = graph::instantiate_params;
    CUDA 10020 cuGraphExecUpdate(executable: Handle, graph: Handle, node: *mut Handle, result: *mut c_int) = graph::update;
    CUDA 12000 cuGraphExecUpdate_v2(executable: Handle, graph: Handle, result: *mut c_void) = graph::update2;
    CUDA 10000 cuGraphExecDestroy(executable: Handle) = graph::destroy_executable;
    CUDA 11010 cuGraphUpload(executable: Handle, stream: Handle) = graph::upload;
    CUDA 11010 cuGraphUpload_ptsz(executable: Handle, stream: Handle) = graph::upload;
    CUDA 10000 cuGraphLaunch(executable: Handle, stream: Handle) = graph::launch::<false>;
    CUDA 10000 cuGraphLaunch_ptsz(executable: Handle, stream: Handle) = graph::launch::<true>;
    CUDA 11040 cuDeviceGraphMemTrim(device: Device) = graph::trim;

    CUDA 4000 cuLaunchKernel(function: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint, stream: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void) = launch::kernel::<false>;
    CUDA 7000 cuLaunchKernel_ptsz(function: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint, stream: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void) = launch::kernel::<true>;
    CUDA 11060 cuLaunchKernelEx(configuration: *const LaunchConfig, function: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void) = launch::kernel_ex::<false>;
    CUDA 11060 cuLaunchKernelEx_ptsz(configuration: *const LaunchConfig, function: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void) = launch::kernel_ex::<true>;
    CUDA 9000 cuLaunchCooperativeKernel(function: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint, stream: Handle, parameters: *mut *mut c_void) = launch::cooperative::<false>;
    CUDA 9000 cuLaunchCooperativeKernel_ptsz(function: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint, stream: Handle, parameters: *mut *mut c_void) = launch::cooperative::<true>;
    CUDA 9000 cuLaunchCooperativeKernelMultiDevice(list: *mut LaunchParams, count: c_uint, flags: c_uint) = launch::cooperative_devices;
    CUDA 2000 cuLaunch(function: Handle) = launch::plain;
    CUDA 2000 cuLaunchGrid(function: Handle, width: c_int, height: c_int) = launch::grid;
    CUDA 2000 cuLaunchGridAsync(function: Handle, width: c_int, height: c_int, stream: Handle) = launch::grid_async;

    CUDA 2000 cuStreamSynchronize(stream: Handle) = capture::synchronize::<false>;
    CUDA 7000 cuStreamSynchronize_ptsz(stream: Handle) = capture::synchronize::<true>;
    CUDA 2000 cuEventSynchronize(event: Handle) = capture::synchronize_event;
    CUDA 2000 cuStreamDestroy(stream: Handle) = capture::destroy;
    CUDA 4000 cuStreamDestroy_v2(stream: Handle) = capture::destroy;
    CUDA 10000 cuStreamBeginCapture(stream: Handle) = capture::begin;
    CUDA 10000 cuStreamBeginCapture_ptsz(stream: Handle) = capture::begin;
    CUDA 10010 cuStreamBeginCapture_v2(stream: Handle, mode: c_int) = capture::begin2;
    CUDA 10010 cuStreamBeginCapture_v2_ptsz(stream: Handle, mode: c_int) = capture::begin2;
    CUDA 12030 cuStreamBeginCaptureToGraph(stream: Handle, graph: Handle, after: *const Handle, edges: *const c_void, count: usize, mode: c_int) = capture::begin_to_graph;
    CUDA 12030 cuStreamBeginCaptureToGraph_ptsz(stream: Handle, graph: Handle, after: *const Handle, edges: *const c_void, count: usize, mode: c_int) = capture::begin_to_graph;
    CUDA 10000 cuStreamEndCapture(stream: Handle, graph: *mut Handle) = capture::end;
    CUDA 10000 cuStreamEndCapture_ptsz(stream: Handle, graph: *mut Handle) = capture::end;
}

/// The entry for a driver's function, by its exported name.
pub fn find(name: &CStr) -> Option<&'static Entry> {
    entries().iter().find(|e| e.driver.name() == name)
}

/// What a program gets where the driver has handed out `found` for `symbol`, which names no version: the limiter's
/// function in the place of that very one.
pub fn instead_of(symbol: &CStr, found: *mut c_void, version: c_int, per_thread: bool) -> *mut c_void {
    let mut family = entries().iter().filter(|e| base(e.driver.name()) == symbol.to_bytes()).peekable();
    if family.peek().is_none() {
        // one of another family's: the driver answers some names with a function of another name
        return entries().iter().find(|e| e.driver.address() == found).map_or(found, |e| e.hook);
    }
    let mut best: Option<&Entry> = None;
    for entry in family {
        if entry.driver.address() == found {
            return entry.hook;
        }
        let name = entry.driver.name().to_bytes();
        let threads = name.ends_with(b"_ptsz") || name.ends_with(b"_ptds");
        // the newest that the asked version had; of a pair, the one for the asked default stream
        let fits = entry.since <= version && (!threads || per_thread);
        if fits && best.is_none_or(|b| (b.since, false) <= (entry.since, threads)) {
            best = Some(entry);
        }
    }
    if let Some(entry) = entries().iter().find(|e| e.driver.address() == found) {
        return entry.hook;
    }
    // a driver that hands out other addresses than the loader is known by version alone; one that has a later version of
    // the function is not known at all
    let later = (2..=9).any(|n| {
        let name = [symbol.to_bytes(), format!("_v{n}").as_bytes()].concat();
        let exported = |suffix: &[u8]| {
            let name = std::ffi::CString::new([&name[..], suffix].concat()).unwrap_or_default();
            driver::in_cuda(&name) == found && find(&name).is_none()
        };
        exported(b"") || exported(b"_ptsz") || exported(b"_ptds")
    });
    match best {
        Some(entry) if !later => {
            entry.driver.learn(found);
            entry.hook
        }
        _ => {
            if let Ok(process) = process::current() {
                process.flag(Flags::UNKNOWN_VERSION);
            }
            message::once(
                Topic::Version,
                format_args!("the driver has a version of {symbol:?} that is not known and not limited"),
            );
            found
        }
    }
}

/// An exported name without its version and stream suffixes: what `cuGetProcAddress` is asked for.
fn base(name: &CStr) -> &[u8] {
    let name = name.to_bytes();
    let name = name.strip_suffix(b"_ptsz").or(name.strip_suffix(b"_ptds")).unwrap_or(name);
    match name {
        [rest @ .., b'_', b'v', digit] if digit.is_ascii_digit() => rest,
        _ => name,
    }
}

/// A hook's result for the program; no panic goes beyond this.
fn guard(name: &str, body: impl FnOnce() -> Result<(), Status>) -> Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(status)) => status,
        Err(_) => {
            if let Ok(process) = process::current() {
                process.flag(Flags::FAULT);
            }
            message::once(Topic::Fault, format_args!("{name} failed by an error of the limiter"));
            UNKNOWN
        }
    }
}

/// The driver's answer as a hook's result.
pub fn check(status: Status) -> Result<(), Status> {
    if status == SUCCESS { Ok(()) } else { Err(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_without_their_suffixes() {
        assert_eq!(base(c"cuMemAlloc_v2"), b"cuMemAlloc");
        assert_eq!(base(c"cuStreamBeginCapture_v2_ptsz"), b"cuStreamBeginCapture");
        assert_eq!(base(c"cuInit"), b"cuInit");
    }

    #[test]
    fn no_function_stands_twice_in_the_table() {
        for (i, a) in entries().iter().enumerate() {
            assert!(
                entries().iter().skip(i + 1).all(|b| b.driver.name() != a.driver.name()),
                "{:?}",
                a.driver.name()
            );
        }
    }
}
