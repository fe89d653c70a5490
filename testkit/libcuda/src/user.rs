//! Objects of the host that graphs keep alive.

use std::ffi::{c_uint, c_void};
use std::sync::Arc;

use crate::driver::{Handle, INVALID_VALUE, Status, put, with};
use crate::object::User;

#[unsafe(no_mangle)]
pub extern "C" fn cuUserObjectCreate(
    place: *mut Handle,
    object: *mut c_void,
    destroy: unsafe extern "C" fn(*mut c_void),
    count: c_uint,
    _flags: c_uint,
) -> Status {
    with(|d| {
        if count == 0 {
            return Err(INVALID_VALUE);
        }
        let handle = d.handle();
        let user = Arc::new(User::new(object, destroy));
        d.users.insert(handle, vec![user; count as usize]);
        put(place, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuUserObjectRetain(handle: Handle, count: c_uint) -> Status {
    with(|d| {
        let held = d.users.get_mut(&handle).ok_or(INVALID_VALUE)?;
        let user = held.first().cloned().ok_or(INVALID_VALUE)?;
        held.extend(vec![user; count as usize]);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuUserObjectRelease(handle: Handle, count: c_uint) -> Status {
    with(|d| {
        let held = d.users.get_mut(&handle).ok_or(INVALID_VALUE)?;
        held.truncate(held.len().checked_sub(count as usize).ok_or(INVALID_VALUE)?);
        if held.is_empty() {
            d.users.remove(&handle);
        }
        Ok(())
    })
}

/// `CU_GRAPH_USER_OBJECT_MOVE`, which is 1, gives the program's references to the graph.
#[unsafe(no_mangle)]
pub extern "C" fn cuGraphRetainUserObject(graph: Handle, handle: Handle, count: c_uint, flags: c_uint) -> Status {
    let status = with(|d| {
        let user = d.users.get(&handle).and_then(|held| held.first()).cloned().ok_or(INVALID_VALUE)?;
        d.graphs.get_mut(&graph).ok_or(INVALID_VALUE)?.users.extend(vec![(handle, user); count as usize]);
        Ok(())
    });
    if status != 0 || flags & 1 == 0 { status } else { cuUserObjectRelease(handle, count) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphReleaseUserObject(graph: Handle, handle: Handle, count: c_uint) -> Status {
    with(|d| {
        let users = &mut d.graphs.get_mut(&graph).ok_or(INVALID_VALUE)?.users;
        for _ in 0..count {
            let at = users.iter().position(|(held, _)| *held == handle).ok_or(INVALID_VALUE)?;
            users.swap_remove(at);
        }
        Ok(())
    })
}
