//! How large a GPU is and how much of it is free: the size of the share and what is left of it.

use crate::abi::{Device, Status, check};
use crate::process;

pub unsafe fn memory(call: impl FnOnce() -> Status, free: *mut usize, total: *mut usize) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    let Some(account) =
        process.cards.here().and_then(|card| process.cards.get(card)).map(|card| card.account.book())
    else {
        return Ok(());
    };
    // a driver may accept a null
    // SAFETY: null, or the driver has accepted it and written to it.
    if let Some(total) = unsafe { total.as_mut() } {
        *total = (*total).min(account.cap() as usize);
    }
    // SAFETY: as above.
    if let Some(free) = unsafe { free.as_mut() } {
        // the GPU itself may have less free memory than the share has left
        *free = (*free).min(account.cap().saturating_sub(account.used()) as usize);
    }
    Ok(())
}

pub unsafe fn total(call: impl FnOnce() -> Status, bytes: *mut usize, device: Device) -> Result<(), Status> {
    let process = process::current()?;
    check(call())?;
    if let Some(card) = process.cards.of_device(device).and_then(|card| process.cards.get(card)) {
        // SAFETY: the driver has accepted the pointer and written to it.
        let bytes = unsafe { &mut *bytes };
        *bytes = (*bytes).min(card.account.book().cap() as usize);
    }
    Ok(())
}
