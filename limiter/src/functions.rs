//! The driver's functions that the limiter replaces, one in a row: its library, the version of CUDA that introduced it
//! (as `cuGetProcAddress` counts), its signature, and the hook that is called in its place.
//!
//! A hook gets the call of the driver's own function with the program's arguments, then the other arguments of its row.

/// Passes the rows to a macro.
macro_rules! functions {
    ($expand:ident) => {
        $expand! {
            CUDA 2000 cuInit(flags: c_uint) = context::init();
            CUDA 11030 cuGetProcAddress(symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: c_ulonglong) = proc_address::replace(entries(), symbol, function, version, flags);
            CUDA 12000 cuGetProcAddress_v2(symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: c_ulonglong, status: *mut c_int) = proc_address::replace(entries(), symbol, function, version, flags);

            CUDA 2000 cuCtxCreate(context: *mut Handle, flags: c_uint, device: Device) = context::create(context, device);
            CUDA 3020 cuCtxCreate_v2(context: *mut Handle, flags: c_uint, device: Device) = context::create(context, device);
            CUDA 11040 cuCtxCreate_v3(context: *mut Handle, parameters: *mut c_void, count: c_int, flags: c_uint, device: Device) = context::create(context, device);
            CUDA 12050 cuCtxCreate_v4(context: *mut Handle, parameters: *mut c_void, flags: c_uint, device: Device) = context::create(context, device);
            CUDA 2000 cuCtxDestroy(context: Handle) = context::destroy(context);
            CUDA 4000 cuCtxDestroy_v2(context: Handle) = context::destroy(context);
            CUDA 2000 cuCtxAttach(context: *mut Handle, flags: c_uint) = context::attach(context);
            CUDA 2000 cuCtxDetach(context: Handle) = context::detach(context);
            CUDA 7000 cuDevicePrimaryCtxRetain(context: *mut Handle, device: Device) = context::retain(context, device);
            CUDA 7000 cuDevicePrimaryCtxRelease(device: Device) = context::release(device);
            CUDA 11000 cuDevicePrimaryCtxRelease_v2(device: Device) = context::release(device);
            CUDA 7000 cuDevicePrimaryCtxReset(device: Device) = context::reset(device);
            CUDA 11000 cuDevicePrimaryCtxReset_v2(device: Device) = context::reset(device);
            CUDA 3010 cuCtxSetLimit(limit: c_int, value: usize) = context::set_limit(limit, value);
            CUDA 2000 cuCtxSynchronize() = stream::wait(For::Context);
            CUDA 13000 cuCtxSynchronize_v2(context: Handle) = stream::wait(For::Event);

            CUDA 2000 cuMemGetInfo(free: *mut c_uint, total: *mut c_uint) = hook::unsupported();
            CUDA 3020 cuMemGetInfo_v2(free: *mut usize, total: *mut usize) = info::memory(free, total);
            CUDA 2000 cuDeviceTotalMem(bytes: *mut c_uint, device: Device) = hook::unsupported();
            CUDA 3020 cuDeviceTotalMem_v2(bytes: *mut usize, device: Device) = info::total(bytes, device);
            NVML 0 nvmlDeviceGetMemoryInfo(device: Handle, memory: *mut NvmlMemory) = nvml::memory(device, memory);
            NVML 0 nvmlDeviceGetMemoryInfo_v2(device: Handle, memory: *mut NvmlMemory2) = nvml::memory2(device, memory);

            CUDA 2000 cuMemAlloc(pointer: *mut c_uint, bytes: c_uint) = hook::unsupported();
            CUDA 3020 cuMemAlloc_v2(pointer: *mut Pointer, bytes: usize) = linear::alloc(pointer, bytes);
            CUDA 2000 cuMemAllocPitch(pointer: *mut c_uint, pitch: *mut c_uint, width: c_uint, height: c_uint, element: c_uint) = hook::unsupported();
            CUDA 3020 cuMemAllocPitch_v2(pointer: *mut Pointer, pitch: *mut usize, width: usize, height: usize, element: c_uint) = linear::pitch(pointer, pitch, width, height);
            CUDA 6000 cuMemAllocManaged(pointer: *mut Pointer, bytes: usize, flags: c_uint) = linear::alloc(pointer, bytes);
            CUDA 2000 cuMemFree(pointer: c_uint) = hook::unsupported();
            CUDA 3020 cuMemFree_v2(pointer: Pointer) = linear::free(pointer);
            CUDA 4010 cuIpcGetMemHandle(handle: *mut IpcHandle, pointer: Pointer) = ipc::export(handle, pointer);
            CUDA 4010 cuIpcOpenMemHandle(pointer: *mut Pointer, handle: IpcHandle, flags: c_uint) = ipc::open(pointer, handle);
            CUDA 11000 cuIpcOpenMemHandle_v2(pointer: *mut Pointer, handle: IpcHandle, flags: c_uint) = ipc::open(pointer, handle);
            CUDA 4010 cuIpcCloseMemHandle(pointer: Pointer) = ipc::close(pointer);
            CUDA 10000 cuImportExternalMemory(memory: *mut Handle, description: *const ExternalMemory) = linear::import(memory, description);
            CUDA 10000 cuDestroyExternalMemory(memory: Handle) = linear::destroy_import(memory);

            CUDA 2000 cuArrayCreate(array: *mut Handle, description: *const c_void) = hook::unsupported();
            CUDA 3020 cuArrayCreate_v2(array: *mut Handle, description: *const ArrayDescriptor) = array::create(array, description);
            CUDA 2000 cuArray3DCreate(array: *mut Handle, description: *const c_void) = hook::unsupported();
            CUDA 3020 cuArray3DCreate_v2(array: *mut Handle, description: *const Array3dDescriptor) = array::create3d(array, description, 1);
            CUDA 2000 cuArrayDestroy(array: Handle) = array::destroy(array);
            CUDA 5000 cuMipmappedArrayCreate(array: *mut Handle, description: *const Array3dDescriptor, levels: c_uint) = array::create3d(array, description, levels);
            CUDA 5000 cuMipmappedArrayDestroy(array: Handle) = array::destroy(array);

            CUDA 10020 cuMemCreate(handle: *mut c_ulonglong, bytes: usize, properties: *const Properties, flags: c_ulonglong) = physical::create(handle, bytes, properties);
            CUDA 10020 cuMemRelease(handle: c_ulonglong) = physical::release(handle);
            CUDA 10020 cuMemMap(pointer: Pointer, bytes: usize, offset: usize, handle: c_ulonglong, flags: c_ulonglong) = physical::map(pointer, bytes, offset, handle);
            CUDA 10020 cuMemUnmap(pointer: Pointer, bytes: usize) = physical::unmap(pointer, bytes);
            CUDA 11000 cuMemRetainAllocationHandle(handle: *mut c_ulonglong, address: *mut c_void) = physical::retain(handle, address);
            CUDA 10020 cuMemExportToShareableHandle(shared: *mut c_void, handle: c_ulonglong, kind: c_int, flags: c_ulonglong) = physical::export(shared, handle, kind);
            CUDA 10020 cuMemImportFromShareableHandle(handle: *mut c_ulonglong, shared: *mut c_void, kind: c_int) = physical::import(handle);
            CUDA 11010 cuMemMapArrayAsync(maps: *mut ArrayMap, count: c_uint, stream: Handle) = physical::map_arrays(maps, count);
            CUDA 11010 cuMemMapArrayAsync_ptsz(maps: *mut ArrayMap, count: c_uint, stream: Handle) = physical::map_arrays(maps, count);

            CUDA 11020 cuMemAllocAsync(pointer: *mut Pointer, bytes: usize, stream: Handle) = pool::alloc(pointer, bytes, stream);
            CUDA 11020 cuMemAllocAsync_ptsz(pointer: *mut Pointer, bytes: usize, stream: Handle) = pool::alloc(pointer, bytes, per_thread(stream));
            CUDA 11020 cuMemAllocFromPoolAsync(pointer: *mut Pointer, bytes: usize, pool: Handle, stream: Handle) = pool::alloc_from(pointer, bytes, pool, stream);
            CUDA 11020 cuMemAllocFromPoolAsync_ptsz(pointer: *mut Pointer, bytes: usize, pool: Handle, stream: Handle) = pool::alloc_from(pointer, bytes, pool, per_thread(stream));
            CUDA 11020 cuMemFreeAsync(pointer: Pointer, stream: Handle) = pool::free(pointer, stream);
            CUDA 11020 cuMemFreeAsync_ptsz(pointer: Pointer, stream: Handle) = pool::free(pointer, per_thread(stream));
            CUDA 11020 cuMemPoolCreate(pool: *mut Handle, properties: *const Properties) = pool::create(pool, properties);
            CUDA 11020 cuMemPoolDestroy(pool: Handle) = pool::destroy(pool);
            CUDA 11020 cuMemPoolTrimTo(pool: Handle, keep: usize) = pool::trim();
            CUDA 11020 cuMemPoolImportPointer(pointer: *mut Pointer, pool: Handle, data: *mut c_void) = pool::import_pointer(pointer);

            CUDA 11040 cuGraphAddMemAllocNode(node: *mut Handle, graph: Handle, after: *const Handle, count: usize, parameters: *mut AllocNode) = graph::add_alloc(graph, parameters);
            CUDA 12020 cuGraphAddNode(node: *mut Handle, graph: Handle, after: *const Handle, count: usize, parameters: *mut NodeParams) = graph::add(graph, parameters);
            CUDA 12030 cuGraphAddNode_v2(node: *mut Handle, graph: Handle, after: *const Handle, edges: *const c_void, count: usize, parameters: *mut NodeParams) = graph::add(graph, parameters);
            CUDA 13040 cuGraphAddNode_v3(node: *mut Handle, graph: Handle, after: *const Handle, edges: *const c_void, count: usize, parameters: *mut NodeParams) = graph::add(graph, parameters);
            CUDA 10000 cuGraphAddChildGraphNode(node: *mut Handle, graph: Handle, after: *const Handle, count: usize, child: Handle) = graph::add_child(graph, child);
            CUDA 10000 cuGraphClone(clone: *mut Handle, graph: Handle) = graph::clone(clone, graph);
            CUDA 10000 cuGraphDestroy(graph: Handle) = graph::destroy(graph);
            CUDA 10000 cuGraphInstantiate(executable: *mut Handle, graph: Handle, node: *mut Handle, log: *mut c_char, length: usize) = graph::instantiate(executable, graph);
            CUDA 11000 cuGraphInstantiate_v2(executable: *mut Handle, graph: Handle, node: *mut Handle, log: *mut c_char, length: usize) = graph::instantiate(executable, graph);
            CUDA 11040 cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, flags: c_ulonglong) = graph::instantiate(executable, graph);
            CUDA 12000 cuGraphInstantiateWithParams(executable: *mut Handle, graph: Handle, parameters: *mut c_void) = graph::instantiate(executable, graph);
            CUDA 12000 cuGraphInstantiateWithParams_ptsz(executable: *mut Handle, graph: Handle, parameters: *mut c_void) = graph::instantiate(executable, graph);
            CUDA 10020 cuGraphExecUpdate(executable: Handle, graph: Handle, node: *mut Handle, result: *mut c_int) = graph::update(executable, graph);
            CUDA 12000 cuGraphExecUpdate_v2(executable: Handle, graph: Handle, result: *mut c_void) = graph::update(executable, graph);
            CUDA 10000 cuGraphExecDestroy(executable: Handle) = graph::destroy_executable(executable);
            CUDA 11010 cuGraphUpload(executable: Handle, stream: Handle) = graph::upload(executable);
            CUDA 11010 cuGraphUpload_ptsz(executable: Handle, stream: Handle) = graph::upload(executable);
            CUDA 10000 cuGraphLaunch(executable: Handle, stream: Handle) = graph::launch(executable, stream);
            CUDA 10000 cuGraphLaunch_ptsz(executable: Handle, stream: Handle) = graph::launch(executable, per_thread(stream));
            CUDA 11040 cuDeviceGraphMemTrim(device: Device) = graph::trim(device);

            CUDA 4000 cuLaunchKernel(function: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint, stream: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void) = launch::kernel(stream);
            CUDA 7000 cuLaunchKernel_ptsz(function: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint, stream: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void) = launch::kernel(per_thread(stream));
            CUDA 11060 cuLaunchKernelEx(configuration: *const LaunchConfig, function: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void) = launch::kernel_ex(configuration, identity);
            CUDA 11060 cuLaunchKernelEx_ptsz(configuration: *const LaunchConfig, function: Handle, parameters: *mut *mut c_void, extra: *mut *mut c_void) = launch::kernel_ex(configuration, per_thread);
            CUDA 9000 cuLaunchCooperativeKernel(function: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint, stream: Handle, parameters: *mut *mut c_void) = launch::kernel(stream);
            CUDA 9000 cuLaunchCooperativeKernel_ptsz(function: Handle, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint, stream: Handle, parameters: *mut *mut c_void) = launch::kernel(per_thread(stream));
            CUDA 9000 cuLaunchCooperativeKernelMultiDevice(list: *mut LaunchParams, count: c_uint, flags: c_uint) = launch::cooperative_devices(list, count);
            CUDA 2000 cuLaunch(function: Handle) = launch::kernel(ptr::null_mut());
            CUDA 2000 cuLaunchGrid(function: Handle, width: c_int, height: c_int) = launch::kernel(ptr::null_mut());
            CUDA 2000 cuLaunchGridAsync(function: Handle, width: c_int, height: c_int, stream: Handle) = launch::kernel(stream);

            CUDA 2000 cuStreamSynchronize(stream: Handle) = stream::wait(For::Stream(stream));
            CUDA 7000 cuStreamSynchronize_ptsz(stream: Handle) = stream::wait(For::Stream(per_thread(stream)));
            CUDA 2000 cuEventSynchronize(event: Handle) = stream::wait(For::Event);
            CUDA 2000 cuStreamDestroy(stream: Handle) = stream::destroy(stream);
            CUDA 4000 cuStreamDestroy_v2(stream: Handle) = stream::destroy(stream);
        }
    };
}
pub(crate) use functions;
