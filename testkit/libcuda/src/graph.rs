//! Graphs of kernels and allocations.

use std::ffi::{c_int, c_ulonglong};

use crate::driver::{
    Executable, Graph, Handle, INVALID_VALUE, OUT_OF_MEMORY, STREAM_PER_THREAD, Status, card, in_context, put, with,
};
use crate::module::nanoseconds;
use crate::stream::queue;

/// The first fields of `CUDA_KERNEL_NODE_PARAMS`.
#[repr(C)]
pub struct KernelNode {
    function: Handle,
    sizes: [u32; 7],
    parameters: *mut *mut u64,
}

/// `CUDA_MEM_ALLOC_NODE_PARAMS`.
#[repr(C)]
pub struct AllocNode {
    pool: [u64; 11],
    access: Handle,
    count: usize,
    bytes: usize,
    pointer: u64,
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphCreate(graph: *mut Handle, _flags: u32) -> Status {
    with(|d| {
        let handle = d.handle();
        d.graphs.insert(handle, Graph::default());
        put(graph, handle)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphAddKernelNode_v2(
    node: *mut Handle,
    graph: Handle,
    _after: *const Handle,
    _count: usize,
    parameters: *const KernelNode,
) -> Status {
    with(|d| {
        let nanoseconds = unsafe { nanoseconds((*parameters).function, (*parameters).parameters) };
        d.graphs.get_mut(&graph).ok_or(INVALID_VALUE)?.kernels.push(nanoseconds);
        put(node, d.handle())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphAddMemAllocNode(
    node: *mut Handle,
    graph: Handle,
    _after: *const Handle,
    _count: usize,
    parameters: *mut AllocNode,
) -> Status {
    with(|d| {
        let parameters = unsafe { &mut *parameters };
        let bytes = (parameters.bytes as u64).next_multiple_of(512);
        parameters.pointer = d.address(bytes);
        d.graphs.get_mut(&graph).ok_or(INVALID_VALUE)?.memory += bytes;
        put(node, d.handle())
    })
}

/// Supports allocation nodes only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphAddNode_v2(
    node: *mut Handle,
    graph: Handle,
    after: *const Handle,
    _edges: *const u8,
    count: usize,
    parameters: *mut u8,
) -> Status {
    unsafe {
        if parameters.cast::<c_int>().read() != 10 {
            return INVALID_VALUE;
        }
        cuGraphAddMemAllocNode(node, graph, after, count, parameters.add(16).cast())
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphClone(clone: *mut Handle, graph: Handle) -> Status {
    with(|d| {
        let copy = d.graphs.get(&graph).ok_or(INVALID_VALUE)?.clone();
        let handle = d.handle();
        d.graphs.insert(handle, copy);
        put(clone, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: Handle) -> Status {
    with(|d| d.graphs.remove(&graph).map(drop).ok_or(INVALID_VALUE))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphInstantiateWithFlags(executable: *mut Handle, graph: Handle, _: c_ulonglong) -> Status {
    in_context(|d, _| {
        let graph = d.graphs.get(&graph).ok_or(INVALID_VALUE)?.clone();
        let handle = d.handle();
        d.executables.insert(handle, Executable { graph });
        put(executable, handle)
    })
}

/// The first fields of `CUDA_GRAPH_INSTANTIATE_PARAMS`.
#[repr(C)]
pub struct InstantiateParams {
    flags: u64,
    upload: Handle,
    node: Handle,
    result: c_int,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithParams(
    executable: *mut Handle,
    graph: Handle,
    parameters: *mut InstantiateParams,
) -> Status {
    let Some(parameters) = (unsafe { parameters.as_mut() }) else { return INVALID_VALUE };
    // CUDA_GRAPH_INSTANTIATE_SUCCESS
    (parameters.node, parameters.result) = (0, 0);
    cuGraphInstantiateWithFlags(executable, graph, parameters.flags)
}

/// Any graph fits here.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecUpdate_v2(executable: Handle, graph: Handle, result: *mut c_int) -> Status {
    with(|d| {
        let graph = d.graphs.get(&graph).ok_or(INVALID_VALUE)?.clone();
        d.executables.get_mut(&executable).ok_or(INVALID_VALUE)?.graph = graph;
        // CU_GRAPH_EXEC_UPDATE_SUCCESS
        put(result, 0)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(executable: Handle) -> Status {
    with(|d| d.executables.remove(&executable).map(drop).ok_or(INVALID_VALUE))
}

/// The memory for all graphs is one pool, as large as the largest graph needed.
fn back(executable: Handle) -> Status {
    in_context(|d, _| {
        let bytes = d.executables.get(&executable).ok_or(INVALID_VALUE)?.graph.memory;
        let growth = bytes.next_multiple_of(32 << 20).saturating_sub(d.graph_reserved);
        if growth > 0 && !card().take(growth) {
            return Err(OUT_OF_MEMORY);
        }
        d.graph_reserved += growth;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphUpload(executable: Handle, _stream: Handle) -> Status {
    back(executable)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(executable: Handle, stream: Handle) -> Status {
    let status = back(executable);
    if status != 0 {
        return status;
    }
    let mut kernels = Vec::new();
    with(|d| {
        kernels = d.executables.get(&executable).ok_or(INVALID_VALUE)?.graph.kernels.clone();
        Ok(())
    });
    queue(stream, &kernels)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch_ptsz(executable: Handle, stream: Handle) -> Status {
    cuGraphLaunch(executable, if stream == 0 { STREAM_PER_THREAD } else { stream })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGraphMemTrim(_device: c_int) -> Status {
    with(|d| {
        card().give(d.graph_reserved);
        d.graph_reserved = 0;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetGraphMemAttribute(_device: c_int, attribute: c_int, value: *mut u64) -> Status {
    with(|d| if attribute == 2 { put(value, d.graph_reserved) } else { Err(INVALID_VALUE) })
}
