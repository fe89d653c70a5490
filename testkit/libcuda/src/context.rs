//! Contexts: created, primary, and green.

use std::ffi::{c_int, c_uint, c_void};

use crate::driver::{
    BELOW, CURRENT, Handle, INVALID_CONTEXT, INVALID_DEVICE, INVALID_HANDLE, INVALID_VALUE, OUT_OF_MEMORY,
    STREAM_PER_THREAD, SUCCESS, Status, Stream, card, context_bytes, in_context, instant, put, with,
};

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxCreate_v2(context: *mut Handle, _flags: c_uint, device: c_int) -> Status {
    with(|d| {
        if device != 0 {
            return Err(INVALID_DEVICE);
        }
        if !card().take(context_bytes()) {
            return Err(OUT_OF_MEMORY);
        }
        let handle = d.handle();
        d.contexts.insert(handle, ());
        CURRENT.set(handle);
        put(context, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxDestroy_v2(context: Handle) -> Status {
    with(|d| {
        if !d.contexts.contains_key(&context) {
            return Err(INVALID_CONTEXT);
        }
        d.context_gone(context);
        Ok(())
    })
}

/// The current context gets one more user.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxAttach(context: *mut Handle, flags: c_uint) -> Status {
    in_context(|d, current| {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        *d.attached.entry(current).or_default() += 1;
        put(context, current)
    })
}

/// The current context loses a user, and ends with the last one.
#[unsafe(no_mangle)]
pub extern "C" fn cuCtxDetach(context: Handle) -> Status {
    in_context(|d, current| {
        if context != current {
            return Err(INVALID_CONTEXT);
        }
        match d.attached.get_mut(&context) {
            Some(more) if *more > 0 => *more -= 1,
            _ => d.context_gone(context),
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> Status {
    if instant() {
        // the real one takes no lock
        return put(context, CURRENT.get()).map_or_else(|error| error, |()| SUCCESS);
    }
    with(|_| put(context, CURRENT.get()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: Handle) -> Status {
    with(|_| {
        CURRENT.set(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetDevice(device: *mut c_int) -> Status {
    in_context(|_, _| put(device, 0))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> Status {
    with(|d| {
        if device != 0 {
            return Err(INVALID_DEVICE);
        }
        let (handle, users) = match d.primary {
            Some(known) => known,
            None if card().take(context_bytes()) => (d.handle(), 0),
            None => return Err(OUT_OF_MEMORY),
        };
        d.contexts.insert(handle, ());
        d.primary = Some((handle, users + 1));
        put(context, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> Status {
    with(|d| match d.primary {
        Some((handle, 1)) => {
            d.primary = None;
            d.context_gone(handle);
            Ok(())
        }
        Some((handle, users)) => {
            d.primary = Some((handle, users - 1));
            Ok(())
        }
        None => Err(INVALID_CONTEXT),
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxReset_v2(_device: c_int) -> Status {
    with(|d| {
        if let Some((handle, _)) = d.primary.take() {
            d.context_gone(handle);
            // with what was allocated in the order of streams
            d.linear.retain(|_, linear| linear.pool == 0);
            for pool in d.pools.values_mut() {
                pool.used = 0;
                pool.trim(0);
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxGetState(_device: c_int, flags: *mut c_uint, active: *mut c_int) -> Status {
    with(|d| {
        put(flags, 0)?;
        put(active, c_int::from(d.primary.is_some()))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPushCurrent_v2(context: Handle) -> Status {
    with(|d| {
        if !d.contexts.contains_key(&context) {
            return Err(INVALID_CONTEXT);
        }
        BELOW.with_borrow_mut(|below| below.push(CURRENT.replace(context)));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPopCurrent_v2(context: *mut Handle) -> Status {
    with(|_| {
        let popped = CURRENT.get();
        if popped == 0 {
            return Err(INVALID_CONTEXT);
        }
        CURRENT.set(BELOW.with_borrow_mut(Vec::pop).unwrap_or(0));
        if context.is_null() { Ok(()) } else { put(context, popped) }
    })
}

/// A green context has a context of its own; which part of the GPU it has is not looked at.
#[unsafe(no_mangle)]
pub extern "C" fn cuGreenCtxCreate(
    green: *mut Handle,
    _resources: *const c_void,
    device: c_int,
    _flags: c_uint,
) -> Status {
    with(|d| {
        if device != 0 {
            return Err(INVALID_DEVICE);
        }
        let (handle, context) = (d.handle(), d.handle());
        d.contexts.insert(context, ());
        d.green.insert(handle, context);
        put(green, handle)
    })
}

/// Streams of a green context outlive it.
#[unsafe(no_mangle)]
pub extern "C" fn cuGreenCtxDestroy(green: Handle) -> Status {
    with(|d| d.green.remove(&green).map(drop).ok_or(INVALID_HANDLE))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxFromGreenCtx(context: *mut Handle, green: Handle) -> Status {
    with(|d| put(context, *d.green.get(&green).ok_or(INVALID_HANDLE)?))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGreenCtxStreamCreate(
    stream: *mut Handle,
    green: Handle,
    _flags: c_uint,
    _priority: c_int,
) -> Status {
    with(|d| {
        let context = *d.green.get(&green).ok_or(INVALID_HANDLE)?;
        let handle = d.handle();
        d.streams.insert(handle, Stream { context, blocking: false, last: None, capture: None });
        put(stream, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamGetCtx(stream: Handle, context: *mut Handle) -> Status {
    with(|d| match stream {
        ..=STREAM_PER_THREAD => put(context, CURRENT.get()),
        _ => put(context, d.streams.get(&stream).ok_or(INVALID_HANDLE)?.context),
    })
}
