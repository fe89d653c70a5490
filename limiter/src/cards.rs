//! The container's GPUs, and this process' entry in the shared file.

use std::ffi::c_int;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use kerf_limiter_contract::limits::{DeviceLimits, Limits};
use kerf_limiter_contract::path;
use kerf_limiter_contract::state::{Flags, State};

use crate::abi::{Device, LOCATION_DEVICE, Properties, SUCCESS, Uuid};
use crate::files::{self, Unusable};
use crate::memory::account::{Account, Refused};
use crate::memory::liveness::Liveness;
use crate::memory::shared::{self, Ticket};
use crate::memory::sum::Book;
use crate::message::{self, Topic};
use crate::pace::Pacer;
use crate::{clock, driver};

pub struct Cards {
    limits: Limits,
    state: &'static State,
    /// This process' entry in the shared file.
    slot: AtomicUsize,
    liveness: Liveness,
    /// By position in the limits.
    all: Vec<Card>,
    /// Position in the limits by the driver's ordinal. Known after `cuInit`.
    ordinals: OnceLock<Vec<Option<usize>>>,
}

pub struct Card {
    pub account: Account,
    pub pacer: Pacer,
    /// Bytes that a context is estimated to take; 0 where neither contexts nor measurements of them count.
    pub context_bytes: u64,
}

/// The accounts of a container's GPUs, for a process that only asks.
pub struct View {
    limits: Limits,
    books: Vec<Book>,
}

impl View {
    /// Reads the files of the contract. Takes no entry of the shared file.
    pub fn open() -> Result<Self, Unusable> {
        let (limits, state) = (files::limits()?, files::state()?.state);
        let books = books(&limits, state);
        Ok(Self { limits, books })
    }

    /// The account of the GPU with this uuid; `None` for one that the limits do not name.
    pub fn of_uuid(&self, uuid: &str) -> Option<&Book> {
        self.books.get(of_uuid(&self.limits, uuid)?)
    }
}

fn books(limits: &Limits, state: &'static State) -> Vec<Book> {
    let overhead = files::overhead();
    let book = |(i, d): (usize, &DeviceLimits)| Book::new(state, i, d.memory, overhead.filter(|_| d.context > 0));
    limits.devices().iter().enumerate().map(book).collect()
}

/// The position in the limits of the GPU with this uuid.
fn of_uuid(limits: &Limits, uuid: &str) -> Option<usize> {
    limits.devices().iter().position(|d| d.uuid.eq_ignore_ascii_case(uuid))
}

impl Cards {
    /// Reads the files of the contract and takes an entry of the shared file.
    pub fn open() -> Result<Self, Unusable> {
        let limits = files::limits()?;
        let mapped = files::state()?;
        let state = mapped.state;
        let liveness = Liveness::of_this_process(mapped).ok_or(Unusable::NoStartTime)?;
        let slot = liveness.register(state).map_err(|_| Unusable::Full)?;
        let allowance = files::allowance();
        let card = |((i, d), book): ((usize, &DeviceLimits), Book)| Card {
            account: Account::new(book, slot),
            pacer: Pacer::new(state, i, d, allowance),
            context_bytes: d.context,
        };
        let all = limits.devices().iter().enumerate().zip(books(&limits, state)).map(card).collect();
        let cards = Self { limits, state, slot: AtomicUsize::new(slot), liveness, all, ordinals: OnceLock::new() };
        cards.seen();
        Ok(cards)
    }

    pub fn all(&self) -> &[Card] {
        &self.all
    }

    /// A GPU by its position in the limits.
    pub fn get(&self, card: usize) -> Option<&Card> {
        self.all.get(card)
    }

    /// The position in the limits of the GPU of the calling thread's context; `None` where the limits do not name it.
    pub fn here(&self) -> Option<usize> {
        let ordinals = self.ordinals();
        if let [only] = ordinals[..] {
            return only;
        }
        let mut device = 0;
        // SAFETY: the pointer is to a local.
        let status = unsafe { driver::cuCtxGetDevice(&raw mut device) };
        // without a context the driver refuses the call that follows
        if status == SUCCESS { self.of_device(device) } else { Some(0) }
    }

    /// The position in the limits of one of the driver's devices.
    pub fn of_device(&self, device: Device) -> Option<usize> {
        let card = usize::try_from(device).ok().and_then(|i| self.ordinals().get(i).copied());
        // the driver itself refuses a device that it does not have
        card.unwrap_or(Some(0))
    }

    /// The position in the limits of the GPU that memory with these properties is of.
    pub fn at(&self, properties: &Properties) -> Option<usize> {
        // other places are near a part of a GPU, or wherever managed memory is used
        if properties.location == LOCATION_DEVICE { self.of_device(properties.id) } else { self.here() }
    }

    /// The driver's device for a position in the limits.
    pub fn device_of(&self, card: usize) -> Option<Device> {
        self.ordinals().iter().position(|c| *c == Some(card)).and_then(|i| i.try_into().ok())
    }

    /// The account of the GPU with this uuid; `None` for one that the limits do not name.
    pub fn of_uuid(&self, uuid: &str) -> Option<&Book> {
        self.all.get(of_uuid(&self.limits, uuid)?).map(|card| card.account.book())
    }

    fn ordinals(&self) -> &[Option<usize>] {
        if let Some(known) = self.ordinals.get() {
            return known;
        }
        let mut count: c_int = 0;
        // SAFETY: the pointer is to a local.
        if unsafe { driver::cuDeviceGetCount(&raw mut count) } != SUCCESS {
            // before cuInit: nothing can be allocated yet
            return &[];
        }
        self.ordinals.get_or_init(|| (0..count).map(|device| self.identify(device)).collect())
    }

    fn identify(&self, device: Device) -> Option<usize> {
        let mut uuid = Uuid::default();
        // SAFETY: the pointer is to a local of the driver's layout. For a MIG instance, version 2 returns its own uuid.
        let status = unsafe {
            match driver::cuDeviceGetUuid_v2(&raw mut uuid, device) {
                SUCCESS => SUCCESS,
                _ => driver::cuDeviceGetUuid(&raw mut uuid, device),
            }
        };
        let text = uuid_text(&uuid);
        let same = |d: &DeviceLimits| {
            let bare = d.uuid.strip_prefix("GPU-").or(d.uuid.strip_prefix("MIG-")).unwrap_or(&d.uuid);
            bare.eq_ignore_ascii_case(&text)
        };
        let card = (status == SUCCESS).then(|| self.limits.devices().iter().position(same)).flatten();
        if card.is_none() {
            self.flag(Flags::UNLISTED_DEVICE);
            message::once(
                Topic::Unlisted,
                format_args!("{} does not name GPU-{text}; its memory cannot be used", path::LIMITS),
            );
        }
        card
    }

    /// Reserves memory on a GPU, where there is room.
    pub fn reserve(&self, card: &Card, bytes: u64) -> Result<(), Refused> {
        self.confirm();
        card.account.reserve(bytes, &self.liveness)
    }

    /// Reserves what a context on a GPU is estimated to take, where there is room.
    pub fn reserve_context(&self, card: &Card) -> Result<(), Refused> {
        self.confirm();
        card.account.reserve_context(card.context_bytes, &self.liveness)
    }

    /// Takes another entry of the shared file where this process' own was given to another one.
    fn confirm(&self) {
        if self.liveness.confirm(self.state, self.slot.load(Ordering::Relaxed)) {
            return;
        }
        self.flag(Flags::OVERWRITTEN);
        // without a free one, the old entry is written by two: each puts right what the other has changed
        if let Ok(slot) = self.liveness.register(self.state) {
            self.slot.store(slot, Ordering::Relaxed);
            self.all.iter().for_each(|card| card.account.move_to(slot));
        }
    }

    /// Notes memory of this process that others may open, while it pays for it.
    pub fn offer(&self, card: usize, key: u64, bytes: u64) -> Option<Ticket> {
        let (_turn, slot) = (self.liveness.turn(), self.slot.load(Ordering::Relaxed));
        shared::offer(self.state, slot, card, key, bytes)
    }

    /// Like [`Cards::offer`], once for each key.
    pub fn offer_once(&self, card: usize, key: u64, bytes: u64) -> Option<Ticket> {
        let (_turn, slot) = (self.liveness.turn(), self.slot.load(Ordering::Relaxed));
        shared::offered(self.state, slot, key).or_else(|| shared::offer(self.state, slot, card, key, bytes))
    }

    /// Opens memory that another process of the container pays for, if there is such.
    pub fn open_shared(&self, card: usize, key: u64) -> Option<Ticket> {
        let (_turn, slot) = (self.liveness.turn(), self.slot.load(Ordering::Relaxed));
        shared::open(self.state, slot, card, key)
    }

    /// Memory that this process opened is closed.
    pub fn close_shared(&self, ticket: Ticket) {
        let (_turn, slot) = (self.liveness.turn(), self.slot.load(Ordering::Relaxed));
        shared::close(self.state, slot, ticket);
    }

    /// This process stops paying, and will release the bytes.
    pub fn leave_to_others(&self, ticket: Ticket) {
        let (_turn, slot) = (self.liveness.turn(), self.slot.load(Ordering::Relaxed));
        shared::leave_to_others(self.state, slot, ticket);
    }

    /// Tells the host that this process has the limiter and has reached its limits.
    pub fn seen(&self) {
        if let Some(process) = self.state.processes.get(self.slot.load(Ordering::Relaxed)) {
            process.seen.store(clock::now(), Ordering::Relaxed);
        }
    }

    /// Tells the host about a problem.
    pub fn flag(&self, flags: Flags) {
        self.state.header.flags.fetch_or(flags.0, Ordering::Relaxed);
    }
}

fn uuid_text(uuid: &Uuid) -> String {
    let mut text = String::new();
    for (i, byte) in uuid.0.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // writing to a String cannot fail
        let _ = write!(text, "{byte:02x}");
    }
    text
}
