//! Graphs of kernels and allocations.

use std::ffi::{c_int, c_ulonglong};

use crate::driver::{
    Driver, Executable, Graph, Handle, INVALID_VALUE, OUT_OF_MEMORY, STREAM_PER_THREAD, Status, card, in_context,
    now, put, with,
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

/// The memory for all graphs is one pool. Those that cannot run at the same time, since they are on one stream, share it.
fn back(executable: Handle, stream: Handle) -> Status {
    in_context(|d, _| {
        let key = d.stream(stream)?;
        let bytes = d.executables.get(&executable).ok_or(INVALID_VALUE)?.graph.memory;
        let others = if bytes > 0 { d.held_by_graphs(Some(key)) } else { 0 };
        let growth = (others + bytes).next_multiple_of(32 << 20).saturating_sub(d.graph_reserved);
        if growth > 0 && !card().take(growth) {
            return Err(OUT_OF_MEMORY);
        }
        d.graph_reserved += growth;
        Ok(())
    })
}

impl Driver {
    /// Bytes of graphs that may still run, but on one stream.
    fn held_by_graphs(&mut self, but: Option<Handle>) -> u64 {
        let at = now();
        self.graphs_running.retain(|(_, work, _)| card().finished(at, *work).is_err());
        self.graphs_running.iter().filter(|(on, ..)| Some(*on) != but).map(|(.., bytes)| bytes).sum()
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphUpload(executable: Handle, stream: Handle) -> Status {
    back(executable, stream)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(executable: Handle, stream: Handle) -> Status {
    let status = back(executable, stream);
    if status != 0 {
        return status;
    }
    let mut kernels = Vec::new();
    with(|d| {
        kernels = d.executables.get(&executable).ok_or(INVALID_VALUE)?.graph.kernels.clone();
        Ok(())
    });
    let status = queue(stream, &kernels);
    with(|d| {
        let (key, bytes) = (d.stream(stream)?, d.executables.get(&executable).ok_or(INVALID_VALUE)?.graph.memory);
        let last = d.streams.get(&key).and_then(|s| s.last).filter(|_| bytes > 0 && !kernels.is_empty());
        d.graphs_running.extend(last.map(|work| (key, work, bytes)));
        Ok(())
    });
    status
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch_ptsz(executable: Handle, stream: Handle) -> Status {
    cuGraphLaunch(executable, if stream == 0 { STREAM_PER_THREAD } else { stream })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGraphMemTrim(_device: c_int) -> Status {
    with(|d| {
        let kept = d.held_by_graphs(None).next_multiple_of(32 << 20).min(d.graph_reserved);
        card().give(d.graph_reserved - kept);
        d.graph_reserved = kept;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetGraphMemAttribute(_device: c_int, attribute: c_int, value: *mut u64) -> Status {
    with(|d| if attribute == 2 { put(value, d.graph_reserved) } else { Err(INVALID_VALUE) })
}
