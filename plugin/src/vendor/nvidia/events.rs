//! Waits for the driver's events about GPUs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kerf::ids::DeviceId;
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError::{self, FailedToLoadSymbol, NoPermission, NotSupported};
use parking_lot::Mutex;

use crate::vendor::nvidia::card::Listed;
use crate::vendor::nvidia::health::HealthTable;

/// How long the thread may take to notice that it is to end.
const WAIT_MILLIS: u32 = 500;

/// The thread that waits for events. Ends when dropped.
pub(super) struct Events {
    stop: Arc<AtomicBool>,
    /// `None` where the system could not start a thread.
    thread: Option<JoinHandle<()>>,
}

impl Events {
    /// Writes the events of all of `cards` into `table`.
    pub(super) fn of(nvml: &Arc<Nvml>, cards: &[Listed], table: &Arc<Mutex<HealthTable>>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (nvml, table, asked, cards) = (Arc::clone(nvml), Arc::clone(table), Arc::clone(&stop), cards.to_vec());
        let run = move || {
            if let Err(error) = wait(&nvml, &cards, &table, &asked) {
                tracing::warn!(%error, "NVIDIA events cannot be waited for");
                // where events do not exist, a restart brings none: only the GPUs' answers are left
                let never = matches!(error, NotSupported | NoPermission | FailedToLoadSymbol(_));
                while never && !asked.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(WAIT_MILLIS.into()));
                }
            }
        };
        let thread = std::thread::Builder::new().name("nvidia-events".to_owned()).spawn(run).ok();
        Self { stop, thread }
    }

    /// Whether the thread has ended.
    pub(super) fn ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes events into `table` until `stop`.
fn wait(nvml: &Nvml, cards: &[Listed], table: &Mutex<HealthTable>, stop: &AtomicBool) -> Result<(), NvmlError> {
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
    let mut set = nvml.create_event_set()?;
    // of several instances of one GPU the first stands for it: events are the GPU's
    let first = |at: usize, card: &Listed| !cards.iter().take(at).any(|other| other.index == card.index);
    for (_, Listed { index, parent: id, .. }) in cards.iter().enumerate().filter(|(at, card)| first(*at, card)) {
        let device = nvml.device_by_index(*index)?;
        let supported = device.supported_event_types()? & wanted;
        if supported.is_empty() {
            tracing::warn!(gpu = %id, "GPU does not support error events; its health is only polled");
            continue;
        }
        set = device.register_events(supported, set).map_err(|error| error.error)?;
    }
    while !stop.load(Ordering::Acquire) {
        let event = match set.wait(WAIT_MILLIS) {
            Ok(event) => event,
            Err(NvmlError::Timeout) => continue,
            Err(NvmlError::GpuLost) => {
                // which GPU was lost shows when each is asked; the pause keeps a lost GPU from filling the log
                std::thread::sleep(Duration::from_millis(WAIT_MILLIS.into()));
                continue;
            }
            Err(error) => return Err(error),
        };
        let xid = match event.event_data {
            Some(XidError::Value(xid)) => Some(xid),
            Some(XidError::Unknown) | None => None,
        };
        // an error of an unknown GPU counts for every GPU
        let named = event.device.uuid().ok().map(|uuid| DeviceId::from(uuid.as_str()));
        let mut table = table.lock();
        let meant = |card: &&Listed| named.as_ref().is_none_or(|named| *named == card.id || *named == card.parent);
        for Listed { id, .. } in cards.iter().filter(meant) {
            let critical = table.xid(id, xid, Instant::now());
            tracing::warn!(gpu = %id, xid, critical, "error reported by the driver");
        }
    }
    Ok(())
}
