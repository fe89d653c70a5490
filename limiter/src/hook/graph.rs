//! Graphs: what they allocate, and launching them.

use std::ffi::{c_char, c_int, c_ulonglong, c_void};

use super::capture::own_stream;
use super::launch::paced;
use crate::abi::{AllocNode, Device, Handle, NODE_GRAPH, NODE_MEM_ALLOC, NodeParams, Status};
use crate::pace::Work;
use crate::process;
use crate::table::check;

pub unsafe fn add_alloc(
    real: real!(*mut Handle, Handle, *const Handle, usize, *mut AllocNode),
    node: *mut Handle,
    graph: Handle,
    after: *const Handle,
    count: usize,
    parameters: *mut AllocNode,
) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(node, graph, after, count, parameters)))?;
    // SAFETY: the driver has accepted them.
    process.graphs.allocates(graph as usize, unsafe { (*parameters).bytes } as u64);
    Ok(())
}

pub unsafe fn add(
    real: real!(*mut Handle, Handle, *const Handle, usize, *mut NodeParams),
    node: *mut Handle,
    graph: Handle,
    after: *const Handle,
    count: usize,
    parameters: *mut NodeParams,
) -> Result<(), Status> {
    check(driver!(real(node, graph, after, count, parameters)))?;
    // SAFETY: the driver has accepted them.
    unsafe { added(graph, parameters) }
}

pub unsafe fn add2(
    real: real!(*mut Handle, Handle, *const Handle, *const c_void, usize, *mut NodeParams),
    node: *mut Handle,
    graph: Handle,
    after: *const Handle,
    edges: *const c_void,
    count: usize,
    parameters: *mut NodeParams,
) -> Result<(), Status> {
    check(driver!(real(node, graph, after, edges, count, parameters)))?;
    // SAFETY: the driver has accepted them.
    unsafe { added(graph, parameters) }
}

/// # Safety
///
/// `parameters` are a node's.
unsafe fn added(graph: Handle, parameters: *const NodeParams) -> Result<(), Status> {
    let process = process::current()?;
    // SAFETY: the caller's promise.
    let parameters = unsafe { &*parameters };
    match parameters.kind {
        NODE_MEM_ALLOC => {
            // SAFETY: the content of such a node; it is long and aligned enough.
            let alloc = unsafe { &*parameters.content.as_ptr().cast::<AllocNode>() };
            process.graphs.allocates(graph as usize, alloc.bytes as u64);
        }
        NODE_GRAPH => process.graphs.includes(graph as usize, parameters.content[0] as usize),
        _ => {}
    }
    Ok(())
}

pub unsafe fn add_child(
    real: real!(*mut Handle, Handle, *const Handle, usize, Handle),
    node: *mut Handle,
    graph: Handle,
    after: *const Handle,
    count: usize,
    child: Handle,
) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(node, graph, after, count, child)))?;
    process.graphs.includes(graph as usize, child as usize);
    Ok(())
}

pub unsafe fn clone(real: real!(*mut Handle, Handle), clone: *mut Handle, graph: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(clone, graph)))?;
    // SAFETY: the driver has accepted the pointer and written to it.
    process.graphs.includes(unsafe { *clone } as usize, graph as usize);
    Ok(())
}

pub unsafe fn destroy(real: real!(Handle), graph: Handle) -> Result<(), Status> {
    let process = process::current()?;
    process.graphs.destroyed(graph as usize);
    check(driver!(real(graph)))
}

pub unsafe fn instantiate(
    real: real!(*mut Handle, Handle, *mut Handle, *mut c_char, usize),
    executable: *mut Handle,
    graph: Handle,
    node: *mut Handle,
    log: *mut c_char,
    length: usize,
) -> Result<(), Status> {
    check(driver!(real(executable, graph, node, log, length)))?;
    // SAFETY: the driver has accepted the pointer and written to it.
    instantiated(unsafe { *executable }, graph)
}

pub unsafe fn instantiate_flags(
    real: real!(*mut Handle, Handle, c_ulonglong),
    executable: *mut Handle,
    graph: Handle,
    flags: c_ulonglong,
) -> Result<(), Status> {
    check(driver!(real(executable, graph, flags)))?;
    // SAFETY: the driver has accepted the pointer and written to it.
    instantiated(unsafe { *executable }, graph)
}

pub unsafe fn instantiate_params(
    real: real!(*mut Handle, Handle, *mut c_void),
    executable: *mut Handle,
    graph: Handle,
    parameters: *mut c_void,
) -> Result<(), Status> {
    check(driver!(real(executable, graph, parameters)))?;
    // SAFETY: the driver has accepted the pointer and written to it.
    instantiated(unsafe { *executable }, graph)
}

pub unsafe fn update(
    real: real!(Handle, Handle, *mut Handle, *mut c_int),
    executable: Handle,
    graph: Handle,
    node: *mut Handle,
    result: *mut c_int,
) -> Result<(), Status> {
    check(driver!(real(executable, graph, node, result)))?;
    instantiated(executable, graph)
}

pub unsafe fn update2(
    real: real!(Handle, Handle, *mut c_void),
    executable: Handle,
    graph: Handle,
    result: *mut c_void,
) -> Result<(), Status> {
    check(driver!(real(executable, graph, result)))?;
    instantiated(executable, graph)
}

fn instantiated(executable: Handle, graph: Handle) -> Result<(), Status> {
    process::current()?.graphs.instantiated(executable as usize, graph as usize);
    Ok(())
}

pub unsafe fn destroy_executable(real: real!(Handle), executable: Handle) -> Result<(), Status> {
    let process = process::current()?;
    process.graphs.executable_destroyed(executable as usize);
    check(driver!(real(executable)))
}

pub unsafe fn upload(real: real!(Handle, Handle), executable: Handle, stream: Handle) -> Result<(), Status> {
    let process = process::current()?;
    let call = || driver!(real(executable, stream));
    if process.graphs.has_memory(executable as usize) {
        return check(process.graphs.launch(process, executable as usize, call));
    }
    check(call())
}

pub unsafe fn launch<const PER_THREAD: bool>(
    real: real!(Handle, Handle),
    executable: Handle,
    stream: Handle,
) -> Result<(), Status> {
    let process = process::current()?;
    check(paced(process, own_stream::<PER_THREAD>(stream), Work::Graph, || {
        let call = || driver!(real(executable, stream));
        if process.graphs.has_memory(executable as usize) {
            return process.graphs.launch(process, executable as usize, call);
        }
        call()
    }))
}

pub unsafe fn trim(real: real!(Device), device: Device) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(device)))?;
    if let Some(card) = process.card_of(device) {
        process.graphs.trimmed(process, card);
    }
    Ok(())
}
