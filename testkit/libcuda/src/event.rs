//! Events.

use std::ffi::c_uint;
use std::sync::atomic::Ordering::Relaxed;

use kerf_standin_card::card::EVENTS;

use crate::capture::CAPTURED_EVENT;
use crate::driver::{
    Cost, Driver, Event, Handle, INVALID_HANDLE, INVALID_VALUE, NOT_READY, NOT_SUPPORTED, STREAM_PER_THREAD,
    SUCCESS, Status, card, in_context, instant, now, put, sleep_until, spend, with,
};
use crate::stream::{INSTANT, wait};

#[unsafe(no_mangle)]
pub extern "C" fn cuEventCreate(event: *mut Handle, _flags: c_uint) -> Status {
    in_context(|d, context| {
        let taken: Vec<u32> = d.events.values().map(|e| e.place).collect();
        let place = (0..EVENTS as u32).find(|place| !taken.contains(place)).ok_or(INVALID_VALUE)?;
        let handle = d.handle();
        d.events.insert(handle, Event { context, place, work: None, captured: false });
        put(event, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: Handle) -> Status {
    with(|d| d.events.remove(&event).map(drop).ok_or(INVALID_HANDLE))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> Status {
    spend(Cost::Record);
    loop {
        let mut full = None;
        let status = with(|d| {
            let key = d.stream(stream)?;
            d.not_implicit(key)?;
            let captured = d.captured_into(key)?.is_some();
            let context = d.streams.get(&key).map(|s| s.context);
            let event = d.events.get_mut(&event).ok_or(INVALID_HANDLE)?;
            if Some(event.context) != context {
                return Err(INVALID_HANDLE);
            }
            event.captured = captured;
            if captured {
                return Ok(());
            }
            event.work = if instant() { Some(INSTANT.load(Relaxed)) } else { card().record(now(), event.place) };
            if event.work.is_none() {
                full = Some(card().room(now()));
            }
            let work = event.work;
            if let Some(stream) = d.streams.get_mut(&key).filter(|_| !instant()) {
                stream.last = work;
            }
            Ok(())
        });
        match full {
            None => return status,
            Some(moment) => sleep_until(moment),
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord_ptsz(event: Handle, stream: Handle) -> Status {
    cuEventRecord(event, if stream == 0 { STREAM_PER_THREAD } else { stream })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecordWithFlags(event: Handle, stream: Handle, _flags: c_uint) -> Status {
    cuEventRecord(event, stream)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecordWithFlags_ptsz(event: Handle, stream: Handle, _flags: c_uint) -> Status {
    cuEventRecord_ptsz(event, stream)
}

/// All work of a process runs in the order in which it came, so that nothing has to wait. Streams that join a capture by
/// an event are not supported.
#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) -> Status {
    with(|d| {
        let key = d.stream(stream)?;
        d.not_implicit(key)?;
        let captured = d.events.get(&event).ok_or(INVALID_HANDLE)?.captured;
        if captured && d.captured_into(key)?.is_none() { Err(NOT_SUPPORTED) } else { Ok(()) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent_ptsz(stream: Handle, event: Handle, flags: c_uint) -> Status {
    cuStreamWaitEvent(if stream == 0 { STREAM_PER_THREAD } else { stream }, event, flags)
}

/// The event, for a call that is prohibited during captures.
fn known(d: &mut Driver, event: Handle) -> Result<&Event, Status> {
    d.unsafe_call()?;
    let event = d.events.get(&event).ok_or(INVALID_HANDLE)?;
    if event.captured { Err(CAPTURED_EVENT) } else { Ok(event) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: Handle) -> Status {
    spend(Cost::Query);
    with(|d| {
        let event = known(d, event)?;
        match event.work {
            Some(_) if !instant() && card().reached(now(), event.place).is_none() => Err(NOT_READY),
            _ => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: Handle) -> Status {
    let status = with(|d| known(d, event).map(drop));
    if status != SUCCESS || instant() {
        return status;
    }
    wait(|d| d.events.get(&event).and_then(|e| e.work))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) -> Status {
    spend(Cost::Query);
    with(|d| {
        let at = |event| {
            let event: &Event = d.events.get(&event).ok_or(INVALID_HANDLE)?;
            if event.captured {
                return Err(CAPTURED_EVENT);
            }
            let work = event.work.ok_or(INVALID_HANDLE)?;
            if instant() {
                // four nanoseconds for each kernel in between
                return Ok(work * 4);
            }
            // the real one has half a microsecond of resolution
            card().reached(now(), event.place).map(|at| at / 500 * 500).ok_or(NOT_READY)
        };
        put(milliseconds, (at(end)? as i64 - at(start)? as i64) as f32 / 1e6)
    })
}
