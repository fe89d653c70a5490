//! Waits for what the driver reports about cards.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kerf::ids::DeviceId;
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;

use crate::vendor::nvidia::health::HealthTable;
use crate::vendor::nvidia::nvml::{EVENT_WAIT_MILLIS, Listed, lock};

/// Until `stop`, writes what is reported into `table`.
pub(super) fn wait(
    nvml: &Nvml,
    cards: &[Listed],
    table: &Mutex<HealthTable>,
    stop: &AtomicBool,
) -> Result<(), NvmlError> {
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
    let mut set = nvml.create_event_set()?;
    // of several instances of one card the first stands for it: events are the card's
    let first = |at: usize, card: &Listed| !cards.iter().take(at).any(|other| other.index == card.index);
    for (_, Listed { index, parent: id, .. }) in cards.iter().enumerate().filter(|(at, card)| first(*at, card)) {
        let device = nvml.device_by_index(*index)?;
        let supported = device.supported_event_types()? & wanted;
        if supported.is_empty() {
            tracing::warn!(gpu = %id, "card reports no errors; only its answers tell its health");
            continue;
        }
        set = device.register_events(supported, set).map_err(|error| error.error)?;
    }
    while !stop.load(Ordering::Acquire) {
        let event = match set.wait(EVENT_WAIT_MILLIS) {
            Ok(event) => event,
            Err(NvmlError::Timeout) => continue,
            Err(NvmlError::GpuLost) => {
                // whose it is shows when each card is asked; the pause keeps a lost card from filling the log
                std::thread::sleep(Duration::from_millis(EVENT_WAIT_MILLIS.into()));
                continue;
            }
            Err(error) => return Err(error),
        };
        let xid = match event.event_data {
            Some(XidError::Value(xid)) => Some(xid),
            Some(XidError::Unknown) | None => None,
        };
        // an error of a card that cannot be named is every card's
        let named = event.device.uuid().ok().map(|uuid| DeviceId::from(uuid.as_str()));
        let mut table = lock(table);
        let meant = |card: &&Listed| named.as_ref().is_none_or(|named| *named == card.id || *named == card.parent);
        for Listed { id, .. } in cards.iter().filter(meant) {
            let critical = table.xid(id, xid, Instant::now());
            tracing::warn!(gpu = %id, xid, critical, "error reported by the driver");
        }
    }
    Ok(())
}
