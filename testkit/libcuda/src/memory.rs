//! Linear memory, arrays, physical memory, imports.

use std::ffi::{c_int, c_uint, c_ulonglong};

use crate::driver::{
    Driver, Handle, INVALID_VALUE, LARGE, Linear, OF_NO_POOL, OUT_OF_MEMORY, Object, PAGE, Status, card,
    in_context, put, with,
};
use crate::host;

/// `CUmemAllocationProp`.
#[repr(C)]
pub struct Properties {
    kind: c_int,
    handle_types: c_int,
    location: c_int,
    id: c_int,
    rest: [u64; 2],
}

impl Properties {
    /// Whether the memory stays on the host: `CU_MEM_LOCATION_TYPE_HOST`, `_HOST_NUMA`, `_HOST_NUMA_CURRENT`, and not
    /// `CU_MEM_ALLOCATION_TYPE_MANAGED`, which is taken to be on the GPU at once.
    pub fn on_host(&self) -> bool {
        self.kind != 2 && matches!(self.location, 2..=4)
    }
}

/// `CUDA_ARRAY_DESCRIPTOR`.
#[repr(C)]
pub struct ArrayDescriptor {
    width: usize,
    height: usize,
    format: c_uint,
    channels: c_uint,
}

/// `CUDA_ARRAY3D_DESCRIPTOR`.
#[repr(C)]
pub struct Array3dDescriptor {
    width: usize,
    height: usize,
    depth: usize,
    format: c_uint,
    channels: c_uint,
    flags: c_uint,
}

/// `CUDA_EXTERNAL_MEMORY_HANDLE_DESC`.
#[repr(C)]
pub struct ExternalMemory {
    kind: c_int,
    handle: [u64; 2],
    size: c_ulonglong,
    flags: c_uint,
    reserved: [c_uint; 16],
}

fn take(d: &mut Driver, bytes: u64, context: Handle) -> Result<u64, Status> {
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    let bytes = bytes.checked_next_multiple_of(512).ok_or(OUT_OF_MEMORY)?;
    d.take(context, bytes)?;
    let at = d.address(bytes);
    d.linear.insert(at, Linear::new(bytes, context, 0));
    Ok(at)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc_v2(pointer: *mut u64, bytes: usize) -> Status {
    in_context(|d, context| {
        d.unsafe_call()?;
        put(pointer, take(d, bytes as u64, context)?)
    })
}

/// The function as it was before version 3.2.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc(pointer: *mut u32, bytes: u32) -> Status {
    in_context(|d, context| put(pointer, take(d, u64::from(bytes), context)? as u32))
}

/// The host writes to it as well.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocManaged(pointer: *mut u64, bytes: usize, _flags: c_uint) -> Status {
    in_context(|d, context| {
        let at = take(d, bytes as u64, context)?;
        let linear = d.linear.remove(&at).ok_or(INVALID_VALUE)?;
        let at = host::map(bytes)?;
        d.linear.insert(at, Linear { managed: true, ..linear });
        put(pointer, at)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAllocPitch_v2(
    pointer: *mut u64,
    pitch: *mut usize,
    width: usize,
    height: usize,
    _element: c_uint,
) -> Status {
    in_context(|d, context| {
        let row = width.next_multiple_of(512);
        put(pitch, row)?;
        put(pointer, take(d, (row * height) as u64, context)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(pointer: u64) -> Status {
    with(|d| {
        let linear = d.linear.remove(&pointer).ok_or(INVALID_VALUE)?;
        if linear.managed {
            host::unmap(pointer, linear.bytes as usize);
        }
        d.free(&linear);
        Ok(())
    })
}

impl Driver {
    pub fn free(&mut self, linear: &Linear) {
        match (self.pools.get_mut(&linear.pool), linear.piece) {
            (Some(pool), _) => pool.freed(linear.bytes),
            (None, 0) if linear.opens > 0 => {}
            (None, 0) if linear.pool == OF_NO_POOL => card().give(linear.bytes),
            (None, 0) => self.give(linear.context, linear.bytes),
            (None, piece) => self.drop_hold(piece),
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetAddressRange_v2(base: *mut u64, bytes: *mut usize, pointer: u64) -> Status {
    with(|d| {
        let (at, linear) = d.linear.range(..=pointer).next_back().ok_or(INVALID_VALUE)?;
        put(base, *at)?;
        put(bytes, linear.bytes as usize)
    })
}

/// The handle tells the size, the address in the exporter, and the piece of the card. A small allocation stays one of its
/// process: its page belongs to others as well.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuIpcGetMemHandle(handle: *mut [u64; 8], pointer: u64) -> Status {
    with(|d| {
        let linear = d.linear.get_mut(&pointer).filter(|l| l.pool == 0 && l.opens == 0).ok_or(INVALID_VALUE)?;
        if linear.piece == 0 && linear.bytes >= LARGE {
            linear.piece = card().share(linear.bytes.next_multiple_of(PAGE)).ok_or(OUT_OF_MEMORY)?;
            d.pieces.insert(linear.piece, 1);
        }
        put(handle, [linear.bytes, pointer, linear.piece, 0, 0, 0, 0, 0])
    })
}

/// Opened again, it is at the same address.
#[unsafe(no_mangle)]
pub extern "C" fn cuIpcOpenMemHandle_v2(pointer: *mut u64, handle: IpcHandle, _flags: c_uint) -> Status {
    in_context(|d, context| {
        let [bytes, _, piece, ..] = handle.0;
        let known = d.linear.iter_mut().find(|(_, l)| l.opens > 0 && piece > 0 && l.piece == piece);
        if let Some((at, linear)) = known {
            linear.opens += 1;
            return put(pointer, *at);
        }
        if piece > 0 && !d.hold(piece) {
            return Err(INVALID_VALUE);
        }
        let at = d.address(bytes);
        d.linear.insert(at, Linear { piece, opens: 1, ..Linear::new(bytes, context, 0) });
        put(pointer, at)
    })
}

/// `CUipcMemHandle`.
#[repr(C)]
pub struct IpcHandle([u64; 8]);

#[unsafe(no_mangle)]
pub extern "C" fn cuIpcCloseMemHandle(pointer: u64) -> Status {
    with(|d| {
        let linear = d.linear.get_mut(&pointer).filter(|l| l.opens > 0).ok_or(INVALID_VALUE)?;
        linear.opens -= 1;
        if linear.opens == 0 {
            let gone = d.linear.remove(&pointer).ok_or(INVALID_VALUE)?;
            d.free(&Linear { opens: 1, ..gone });
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuImportExternalMemory(memory: *mut Handle, of: *const ExternalMemory) -> Status {
    in_context(|d, _| {
        let handle = d.handle();
        d.externals.insert(handle, unsafe { (*of).size });
        put(memory, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDestroyExternalMemory(memory: Handle) -> Status {
    with(|d| d.externals.remove(&memory).map(drop).ok_or(INVALID_VALUE))
}

fn texels(format: c_uint, channels: c_uint, elements: u64) -> u64 {
    let bytes = match format {
        0x01 | 0x08 => 1,
        0x02 | 0x09 | 0x10 => 2,
        _ => 4,
    };
    elements * bytes * u64::from(channels)
}

fn array(d: &mut Driver, context: Handle, bytes: u64) -> Result<Handle, Status> {
    let bytes = bytes.next_multiple_of(512);
    d.take(context, bytes)?;
    let handle = d.handle();
    d.arrays.insert(handle, (bytes, context));
    Ok(handle)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuArrayCreate_v2(handle: *mut Handle, of: *const ArrayDescriptor) -> Status {
    in_context(|d, context| {
        let of = unsafe { &*of };
        let elements = of.width as u64 * of.height.max(1) as u64;
        put(handle, array(d, context, texels(of.format, of.channels, elements))?)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuArray3DCreate_v2(handle: *mut Handle, of: *const Array3dDescriptor) -> Status {
    unsafe { cuMipmappedArrayCreate(handle, of, 1) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMipmappedArrayCreate(
    handle: *mut Handle,
    of: *const Array3dDescriptor,
    levels: c_uint,
) -> Status {
    in_context(|d, context| {
        let of = unsafe { &*of };
        let (mut w, mut h, mut z) = (of.width as u64, of.height.max(1) as u64, of.depth.max(1) as u64);
        let mut bytes = 0;
        for _ in 0..levels {
            bytes += texels(of.format, of.channels, w * h * z);
            (w, h) = ((w / 2).max(1), (h / 2).max(1));
            if of.flags & 1 == 0 {
                z = (z / 2).max(1);
            }
        }
        // sparse arrays get their memory by mapping
        put(handle, array(d, context, if of.flags & 0x40 != 0 { 0 } else { bytes })?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuArrayDestroy(handle: Handle) -> Status {
    with(|d| {
        let (bytes, context) = d.arrays.remove(&handle).ok_or(INVALID_VALUE)?;
        d.give(context, bytes);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMipmappedArrayDestroy(handle: Handle) -> Status {
    cuArrayDestroy(handle)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemCreate(handle: *mut u64, bytes: usize, of: *const Properties, _flags: u64) -> Status {
    in_context(|d, _| {
        let host = unsafe { (*of).on_host() };
        let bytes = bytes as u64;
        if bytes == 0 || !bytes.is_multiple_of(PAGE) {
            return Err(INVALID_VALUE);
        }
        if !host && !card().take(bytes) {
            return Err(OUT_OF_MEMORY);
        }
        let id = d.handle() as u64;
        d.objects.insert(id, Object { bytes, handles: 1, maps: 0, host, piece: 0 });
        put(handle, id)
    })
}

impl Driver {
    fn drop_object(&mut self, id: u64) {
        if let Some(object) = self.objects.get(&id)
            && object.handles == 0
            && object.maps == 0
        {
            match (object.host, object.piece) {
                (true, _) => {}
                (false, 0) => card().give(object.bytes),
                (false, piece) => self.drop_hold(piece),
            }
            self.objects.remove(&id);
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemRelease(handle: u64) -> Status {
    with(|d| {
        let object = d.objects.get_mut(&handle).filter(|o| o.handles > 0).ok_or(INVALID_VALUE)?;
        object.handles -= 1;
        d.drop_object(handle);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAddressReserve(pointer: *mut u64, bytes: usize, _: usize, _: u64, _: u64) -> Status {
    with(|d| put(pointer, d.address(bytes as u64)))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemMap(pointer: u64, bytes: usize, _offset: usize, handle: u64, _flags: u64) -> Status {
    with(|d| {
        d.objects.get_mut(&handle).filter(|o| o.handles > 0).ok_or(INVALID_VALUE)?.maps += 1;
        d.ranges.insert(pointer, (bytes as u64, handle));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemUnmap(pointer: u64, bytes: usize) -> Status {
    with(|d| {
        let within: Vec<u64> = d.ranges.range(pointer..pointer + bytes as u64).map(|(at, _)| *at).collect();
        if within.is_empty() {
            return Err(INVALID_VALUE);
        }
        for at in within {
            let Some((_, id)) = d.ranges.remove(&at) else { continue };
            if let Some(object) = d.objects.get_mut(&id) {
                object.maps -= 1;
            }
            d.drop_object(id);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemRetainAllocationHandle(handle: *mut u64, address: u64) -> Status {
    with(|d| {
        let (_, (_, id)) = d.ranges.range(..=address).next_back().ok_or(INVALID_VALUE)?;
        let id = *id;
        if let Some(object) = d.objects.get_mut(&id) {
            object.handles += 1;
        }
        put(handle, id)
    })
}

/// The descriptor is of a file in memory that names the piece of the card and its size. Unlike the driver's, it does not
/// keep the memory alive.
#[unsafe(no_mangle)]
pub extern "C" fn cuMemExportToShareableHandle(shared: *mut c_int, handle: u64, _: c_int, _: u64) -> Status {
    with(|d| {
        let object = d.objects.get_mut(&handle).filter(|o| !o.host).ok_or(INVALID_VALUE)?;
        if object.piece == 0 {
            object.piece = card().share(object.bytes).ok_or(OUT_OF_MEMORY)?;
            d.pieces.insert(object.piece, 1);
        }
        let content = [object.piece, object.bytes];
        // by its number: old C libraries lack the function
        let descriptor = unsafe { libc::syscall(libc::SYS_memfd_create, c"standin".as_ptr(), libc::MFD_CLOEXEC) };
        let descriptor = descriptor as c_int;
        let written = unsafe { libc::pwrite(descriptor, content.as_ptr().cast(), 16, 0) };
        if written != 16 {
            return Err(INVALID_VALUE);
        }
        put(shared, descriptor)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemImportFromShareableHandle(handle: *mut u64, shared: usize, _: c_int) -> Status {
    in_context(|d, _| {
        let mut content = [0_u64; 2];
        let read = unsafe { libc::pread(shared as c_int, content.as_mut_ptr().cast(), 16, 0) };
        let [piece, bytes] = content;
        if read != 16 || !d.hold(piece) {
            return Err(INVALID_VALUE);
        }
        let id = d.handle() as u64;
        d.objects.insert(id, Object { bytes, handles: 1, maps: 0, host: false, piece });
        put(handle, id)
    })
}
