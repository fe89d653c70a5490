//! Pools of stream-ordered memory: they grow by 32 MiB, and keep what they have until they are trimmed, or until a
//! stream is waited for and they may keep less.

use std::ffi::c_int;

use crate::driver::{
    DEFAULT_POOL, Driver, Handle, INVALID_VALUE, Linear, OF_NO_POOL, Pool, STREAM_PER_THREAD, SUCCESS, Status,
    card, in_context, put, with,
};
use crate::memory::{Properties, cuMemFree_v2};

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut Handle, _device: c_int) -> Status {
    with(|_| put(pool, DEFAULT_POOL))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetMemPool(pool: *mut Handle, _device: c_int) -> Status {
    with(|d| put(pool, d.pool_now))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceSetMemPool(_device: c_int, pool: Handle) -> Status {
    with(|d| {
        d.pool_now = pool;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolCreate(pool: *mut Handle, of: *const Properties) -> Status {
    in_context(|d, _| {
        let handle = d.handle();
        let host = unsafe { (*of).on_host() };
        d.pools.insert(handle, Pool { host, ..Pool::default() });
        put(pool, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemPoolDestroy(pool: Handle) -> Status {
    with(|d| {
        let gone = d.pools.remove(&pool).ok_or(INVALID_VALUE)?;
        // memory that is handed out outlives the pool
        let mut kept = 0;
        for linear in d.linear.values_mut().filter(|l| l.pool == pool) {
            linear.pool = OF_NO_POOL;
            kept += linear.bytes;
        }
        if !gone.host {
            card().give(gone.reserved - kept);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemPoolTrimTo(pool: Handle, keep: usize) -> Status {
    with(|d| {
        d.pools.get_mut(&pool).ok_or(INVALID_VALUE)?.trim(keep as u64);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemPoolGetAttribute(pool: Handle, attribute: c_int, value: *mut u64) -> Status {
    with(|d| {
        let pool = d.pools.get(&pool).ok_or(INVALID_VALUE)?;
        match attribute {
            4 => put(value, pool.threshold),
            5 => put(value, pool.reserved),
            7 => put(value, pool.used),
            _ => Err(INVALID_VALUE),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolSetAttribute(pool: Handle, attribute: c_int, value: *mut u64) -> Status {
    with(|d| match (d.pools.get_mut(&pool), attribute) {
        (Some(pool), 4) => {
            pool.threshold = unsafe { *value };
            Ok(())
        }
        _ => Err(INVALID_VALUE),
    })
}

fn alloc(d: &mut Driver, pointer: *mut u64, bytes: usize, pool: Handle, stream: Handle) -> Result<(), Status> {
    let bytes = (bytes as u64).next_multiple_of(512);
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    let at = d.address(bytes);
    let key = d.stream(stream)?;
    if let Some(graph) = d.captured_into(key)? {
        d.graphs.get_mut(&graph).ok_or(INVALID_VALUE)?.memory += bytes;
        return put(pointer, at);
    }
    d.pools.get_mut(&pool).ok_or(INVALID_VALUE)?.alloc(bytes)?;
    d.linear.insert(at, Linear::new(bytes, 0, pool));
    put(pointer, at)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocAsync(pointer: *mut u64, bytes: usize, stream: Handle) -> Status {
    in_context(|d, _| {
        let pool = d.pool_now;
        alloc(d, pointer, bytes, pool, stream)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocAsync_ptsz(pointer: *mut u64, bytes: usize, stream: Handle) -> Status {
    in_context(|d, _| {
        let pool = d.pool_now;
        alloc(d, pointer, bytes, pool, stream)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocFromPoolAsync(pointer: *mut u64, bytes: usize, pool: Handle, stream: Handle) -> Status {
    in_context(|d, _| alloc(d, pointer, bytes, pool, stream))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocFromPoolAsync_ptsz(
    pointer: *mut u64,
    bytes: usize,
    pool: Handle,
    stream: Handle,
) -> Status {
    in_context(|d, _| alloc(d, pointer, bytes, pool, stream))
}

/// Captured, it frees what the graph has allocated, or memory of the program when the graph runs; the graph's memory stays
/// until it is trimmed. Memory of no pool stays until the stream is waited for.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync(pointer: u64, stream: Handle) -> Status {
    let mut later = false;
    let status = with(|d| {
        let key = d.stream(stream)?;
        later = d.captured_into(key)?.is_some();
        let of_no_pool = |l: &Linear| l.pool == 0 && l.opens == 0 && !l.managed;
        if !later && d.linear.get(&pointer).is_some_and(of_no_pool) {
            let left = d.linear.remove(&pointer).ok_or(INVALID_VALUE)?;
            d.leaving.push((key, left));
            later = true;
        }
        Ok(())
    });
    if status != SUCCESS || later { status } else { cuMemFree_v2(pointer) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFreeAsync_ptsz(pointer: u64, stream: Handle) -> Status {
    cuMemFreeAsync(pointer, if stream == 0 { STREAM_PER_THREAD } else { stream })
}
