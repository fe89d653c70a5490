//! Graphs: what they allocate, and launching them.

use super::launch::paced;
use crate::abi::{AllocNode, Device, Handle, NODE_GRAPH, NODE_MEM_ALLOC, NodeParams, Status, check};
use crate::pace::lane::Work;
use crate::process::{self, Process};

pub unsafe fn add_alloc(
    call: impl FnOnce() -> Status,
    graph: Handle,
    parameters: *const AllocNode,
) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    // SAFETY: the driver has accepted them.
    process.graphs.allocates(graph as usize, unsafe { (*parameters).bytes } as u64);
    Ok(())
}

pub unsafe fn add(
    call: impl FnOnce() -> Status,
    graph: Handle,
    parameters: *const NodeParams,
) -> Result<(), Status> {
    check(call())?;
    let process = process::current()?;
    // SAFETY: the driver has accepted them.
    let parameters = unsafe { &*parameters };
    match parameters.kind {
        NODE_MEM_ALLOC => {
            // SAFETY: the content of an allocation node; it is long and aligned enough.
            let alloc = unsafe { &*parameters.content.as_ptr().cast::<AllocNode>() };
            process.graphs.allocates(graph as usize, alloc.bytes as u64);
        }
        NODE_GRAPH => process.graphs.includes(graph as usize, parameters.content[0] as usize),
        _ => {}
    }
    Ok(())
}

pub unsafe fn add_child(call: impl FnOnce() -> Status, graph: Handle, child: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    process.graphs.includes(graph as usize, child as usize);
    Ok(())
}

pub unsafe fn clone(call: impl FnOnce() -> Status, clone: *const Handle, graph: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    // SAFETY: the driver has accepted the pointer and written to it.
    process.graphs.includes(unsafe { *clone } as usize, graph as usize);
    Ok(())
}

pub unsafe fn destroy(call: impl FnOnce() -> Status, graph: Handle) -> Result<(), Status> {
    let process = process::current()?;
    process.graphs.destroyed(graph as usize);
    check(call())
}

pub unsafe fn instantiate(
    call: impl FnOnce() -> Status,
    executable: *mut Handle,
    graph: Handle,
) -> Result<(), Status> {
    check(call())?;
    // SAFETY: the driver has accepted the pointer and written to it.
    instantiated(unsafe { *executable }, graph)
}

/// An executable graph is updated from another graph.
pub unsafe fn update(call: impl FnOnce() -> Status, executable: Handle, graph: Handle) -> Result<(), Status> {
    check(call())?;
    instantiated(executable, graph)
}

fn instantiated(executable: Handle, graph: Handle) -> Result<(), Status> {
    process::current()?.graphs.instantiated(executable as usize, graph as usize);
    Ok(())
}

pub unsafe fn destroy_executable(call: impl FnOnce() -> Status, executable: Handle) -> Result<(), Status> {
    let process = process::current()?;
    process.graphs.executable_destroyed(executable as usize);
    check(call())
}

pub unsafe fn upload(call: impl FnOnce() -> Status, executable: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(counted(process, executable, call))
}

pub unsafe fn launch(call: impl FnOnce() -> Status, executable: Handle, stream: Handle) -> Result<(), Status> {
    let process = process::current()?;
    check(paced(process, stream, Work::Graph, || counted(process, executable, call)))
}

fn counted(process: &Process, executable: Handle, call: impl FnOnce() -> Status) -> Status {
    if process.graphs.has_memory(executable as usize) {
        return process.graphs.launch(process, executable as usize, call);
    }
    call()
}

pub unsafe fn trim(call: impl FnOnce() -> Status, device: Device) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    if let Some(card) = process.cards.of_device(device) {
        process.graphs.trimmed(process, card);
    }
    Ok(())
}
