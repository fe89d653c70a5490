//! Waits for the driver's events about GPUs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kerf::ids::DeviceId;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{EventSet, Nvml};
use parking_lot::Mutex;

use crate::vendor::nvidia::card::Listed;
use crate::vendor::nvidia::health::HealthTable;

/// How long the thread may take to notice that it is to end.
const WAIT_MILLIS: u32 = 500;
/// An error of a GPU that comes again within this time is not logged again: programs in containers can cause some by the
/// thousand.
const AGAIN: Duration = Duration::from_secs(60);
/// Errors of which it is known when they were logged; more than GPUs have.
const MAX_LOGGED: usize = 4096;

/// Why the events of a GPU are not reported, by its id.
pub(super) type Unreported = BTreeMap<DeviceId, String>;

/// The thread that waits for events. Ends when dropped.
pub(super) struct Events {
    stop: Arc<AtomicBool>,
    /// `None` where it could not be started, or there is nothing to wait for.
    thread: Option<JoinHandle<()>>,
    /// The GPUs of which no events come.
    pub(super) unreported: Unreported,
    /// Whether there is anything to wait for.
    waits: bool,
    /// Why the thread has ended.
    end: Arc<Mutex<Option<String>>>,
}

impl Events {
    /// Writes the events of all of `cards` into `table`, as far as the driver reports them. Returns once it has said of
    /// which GPUs it does.
    pub(super) fn of(nvml: &Arc<Nvml>, cards: &[Listed], table: &Arc<Mutex<HealthTable>>) -> Self {
        let (stop, end) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Option<String>>>::default());
        let (ready, said) = mpsc::sync_channel(1);
        let run = {
            let (nvml, table, asked, end) =
                (Arc::clone(nvml), Arc::clone(table), Arc::clone(&stop), Arc::clone(&end));
            let cards = cards.to_vec();
            move || {
                let (set, unreported) = registered(&nvml, &cards);
                // whoever waits for this does so until it comes
                let _ = ready.send((set.is_some(), unreported));
                if let Some(set) = set
                    && let Err(error) = wait(&set, &cards, &table, &asked)
                {
                    *end.lock() = Some(error.to_string());
                }
            }
        };
        let thread = std::thread::Builder::new().name("nvidia-events".to_owned()).spawn(run);
        let none = |why: String| firsts(cards).map(|card| (card.parent.clone(), why.clone())).collect();
        let (waits, unreported) = match &thread {
            Ok(_) => said.recv().unwrap_or_else(|error| (false, none(error.to_string()))),
            Err(error) => (false, none(error.to_string())),
        };
        Self { stop, thread: thread.ok(), unreported, waits, end }
    }

    /// Whether the thread has ended, or ends since there is nothing to wait for.
    pub(super) fn ended(&self) -> bool {
        !self.waits || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The driver's error that has ended the thread.
    pub(super) fn end(&self) -> Option<String> {
        self.end.lock().clone()
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

/// Of several instances of one GPU the first stands for it: events are the GPU's.
fn firsts(cards: &[Listed]) -> impl Iterator<Item = &Listed> {
    let first = |at: usize, card: &Listed| !cards.iter().take(at).any(|other| other.index == card.index);
    cards.iter().enumerate().filter(move |(at, card)| first(*at, card)).map(|(_, card)| card)
}

/// The set of events of all GPUs that report them, `None` where none does; and why the others do not.
fn registered<'a>(nvml: &'a Nvml, cards: &[Listed]) -> (Option<EventSet<'a>>, Unreported) {
    let mut unreported = Unreported::new();
    // a set is lost with the GPU that cannot be added to it: the next is made without that GPU
    'sets: loop {
        let left: Vec<&Listed> = firsts(cards).filter(|card| !unreported.contains_key(&card.parent)).collect();
        let mut set = match nvml.create_event_set() {
            Ok(set) if !left.is_empty() => set,
            Ok(_) => return (None, unreported),
            Err(error) => {
                unreported.extend(left.into_iter().map(|card| (card.parent.clone(), error.to_string())));
                return (None, unreported);
            }
        };
        for card in left {
            match with(nvml, card, set) {
                Ok((with, None)) => set = with,
                Ok((without, Some(why))) => {
                    unreported.insert(card.parent.clone(), why);
                    set = without;
                }
                Err(error) => {
                    unreported.insert(card.parent.clone(), error.to_string());
                    continue 'sets;
                }
            }
        }
        let all = firsts(cards).all(|card| unreported.contains_key(&card.parent));
        return ((!all).then_some(set), unreported);
    }
}

/// The set with the events of one GPU, or as it was and why the GPU has none.
fn with<'a>(nvml: &'a Nvml, card: &Listed, set: EventSet<'a>) -> Result<(EventSet<'a>, Option<String>), NvmlError> {
    let wanted = EventTypes::CRITICAL_XID_ERROR | EventTypes::DOUBLE_BIT_ECC_ERROR;
    let device = match nvml.device_by_index(card.index) {
        Ok(device) => device,
        Err(error) => return Ok((set, Some(error.to_string()))),
    };
    match device.supported_event_types() {
        Ok(supported) if (supported & wanted).is_empty() => {
            Ok((set, Some("it does not support these events".to_owned())))
        }
        Ok(supported) => {
            let set = device.register_events(supported & wanted, set).map_err(|error| error.error)?;
            Ok((set, None))
        }
        Err(error) => Ok((set, Some(error.to_string()))),
    }
}

/// When each error of each GPU was last logged.
#[derive(Default)]
struct Logged(BTreeMap<(DeviceId, Option<u64>), Instant>);

impl Logged {
    /// Whether it is to be logged now.
    fn is_news(&mut self, card: &DeviceId, xid: Option<u64>, now: Instant) -> bool {
        if self.0.len() >= MAX_LOGGED {
            self.0.retain(|_, at| now.saturating_duration_since(*at) < AGAIN);
        }
        let key = (card.clone(), xid);
        let news = self.0.get(&key).is_none_or(|at| now.saturating_duration_since(*at) >= AGAIN);
        if news && self.0.len() < MAX_LOGGED {
            self.0.insert(key, now);
        }
        news && self.0.len() < MAX_LOGGED
    }
}

/// Writes events into `table` until `stop`.
fn wait(
    set: &EventSet<'_>,
    cards: &[Listed],
    table: &Mutex<HealthTable>,
    stop: &AtomicBool,
) -> Result<(), NvmlError> {
    let mut logged = Logged::default();
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
        let meant = |card: &&Listed| named.as_ref().is_none_or(|named| *named == card.id || *named == card.parent);
        let mut table = table.lock();
        let now = Instant::now();
        for Listed { id, parent, .. } in cards.iter().filter(meant) {
            let critical = table.xid(id, xid, now);
            // instances that are made later are told of it by their GPU
            table.xid(parent, xid, now);
            if logged.is_news(id, xid, now) {
                tracing::warn!(gpu = %id, xid, critical, "error reported by the driver");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_repeats_itself_is_logged_once_in_a_while() {
        let (start, [first, second]) = (Instant::now(), ["GPU-0", "GPU-1"].map(DeviceId::from));
        let mut logged = Logged::default();
        let mut news = |card, xid, seconds| logged.is_news(card, xid, start + Duration::from_secs(seconds));
        assert!(news(&first, Some(31), 0));
        assert!((0..1000).all(|_| !news(&first, Some(31), 59)));
        // others are not held back by it
        assert!(news(&first, Some(79), 1) && news(&first, None, 1) && news(&second, Some(31), 1));
        assert!(news(&first, Some(31), 60));
        // numbers that come without end take no memory without end
        let told = (0..100_000).filter(|xid| news(&second, Some(1000 + xid), 61)).count();
        assert!(told < MAX_LOGGED, "{told}");
        assert!(logged.0.len() <= MAX_LOGGED);
    }
}
