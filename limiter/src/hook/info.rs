//! How large a card is and how much of it is free: the share's size and what is left of it.

use std::ffi::c_uint;

use super::linear::NOT_SUPPORTED;
use crate::abi::{Device, Status};
use crate::process;
use crate::table::check;

pub unsafe fn old_memory(_: real!(*mut c_uint, *mut c_uint), _: *mut c_uint, _: *mut c_uint) -> Result<(), Status> {
    Err(NOT_SUPPORTED)
}

pub unsafe fn old_total(_: real!(*mut c_uint, Device), _: *mut c_uint, _: Device) -> Result<(), Status> {
    Err(NOT_SUPPORTED)
}

pub unsafe fn memory(
    real: real!(*mut usize, *mut usize),
    free: *mut usize,
    total: *mut usize,
) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(free, total)))?;
    let Some(account) = process.here().and_then(|card| process.card(card)).map(|card| &card.account) else {
        return Ok(());
    };
    // SAFETY: the driver has accepted both and written to them.
    let (free, total) = unsafe { (&mut *free, &mut *total) };
    *total = (*total).min(account.cap() as usize);
    // the card itself may have less than the share has left
    *free = (*free).min(account.cap().saturating_sub(account.used()) as usize);
    Ok(())
}

pub unsafe fn total(real: real!(*mut usize, Device), bytes: *mut usize, device: Device) -> Result<(), Status> {
    let process = process::current()?;
    check(driver!(real(bytes, device)))?;
    if let Some(card) = process.card_of(device).and_then(|card| process.card(card)) {
        // SAFETY: the driver has accepted the pointer and written to it.
        let bytes = unsafe { &mut *bytes };
        *bytes = (*bytes).min(card.account.cap() as usize);
    }
    Ok(())
}
