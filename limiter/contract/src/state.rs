//! The file that a container's processes share: what each holds of each card, and how the card's time is spent.
//!
//! It is mapped by every process of the container that uses a card, and all of it is atomic integers: there is no lock, so
//! a process that is killed at any instruction leaves nothing behind that would have to be mended. What it held is
//! given back by the next process that finds it gone.
//!
//! Everything in it can be overwritten by the tenant. The limiter puts its own entries right when it finds them changed,
//! and says so ([`Flags`]); the host reads it ([`Snapshot`]) and believes what NVML says.

use std::io::{self, Read};
use std::mem::{offset_of, size_of};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::{fmt, ops};

use crate::limits::MAX_DEVICES;

/// The first eight bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"kerfstat");
/// The version of this layout.
pub const VERSION: u32 = 1;
/// Most processes of one container that use cards at the same time.
pub const MAX_PROCESSES: usize = 1024;
/// The file's exact length.
pub const BYTES: usize = size_of::<State>();
/// Pieces of time in which the use of a card is remembered; see [`SLICE`].
pub const SLICES: usize = 512;
/// Length of one of [`Device::timeline`]'s pieces, in nanoseconds.
pub const SLICE: u64 = 2_000_000;

/// The whole file, in the machine's byte order.
#[repr(C)]
pub struct State {
    /// What it is.
    pub header: Header,
    /// Who uses cards. A process that is not here has not loaded the limiter, or has not used a card yet.
    pub processes: [Process; MAX_PROCESSES],
    /// By position in [`crate::limits::Limits::devices`].
    pub devices: [Device; MAX_DEVICES],
}

/// What the file is.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`VERSION`].
    pub version: AtomicU32,
    /// [`BYTES`].
    pub bytes: AtomicU32,
    /// [`Flags`].
    pub flags: AtomicU32,
    /// Entries of [`State::processes`] from here on were never used.
    pub high: AtomicU32,
    /// Zero.
    pub reserved: [AtomicU64; 5],
}

/// A process that uses cards.
#[repr(C)]
pub struct Process {
    /// 0 where nobody is; else [`owner`].
    pub owner: AtomicU64,
    /// Inode of the pid namespace that the pid in `owner` belongs to.
    pub namespace: AtomicU64,
    /// When it registered, or last found no room for an allocation: nanoseconds of `CLOCK_MONOTONIC`.
    pub seen: AtomicU64,
    /// Zero.
    pub reserved: AtomicU64,
}

/// One card.
#[repr(C)]
pub struct Device {
    /// Kernels may start from this moment on; nanoseconds of `CLOCK_MONOTONIC`.
    pub due: AtomicU64,
    /// Nanoseconds that the container's kernels were seen to run, ever; overlaps count once.
    pub busy: AtomicU64,
    /// Nanoseconds that launches were held back, ever.
    pub waited: AtomicU64,
    /// Allocations that were refused because of the cap, ever.
    pub refused: AtomicU64,
    /// How much of each of the last [`SLICES`] pieces of time is charged: the low half of the piece's number, then
    /// nanoseconds.
    pub timeline: [AtomicU64; SLICES],
    /// Bytes that each process holds or is just about to hold, by position in [`State::processes`].
    pub taken: [AtomicU64; MAX_PROCESSES],
    /// Bytes that each process holds.
    pub held: [AtomicU64; MAX_PROCESSES],
}

/// The value of [`Process::owner`]: a pid, and the low half of the process' start time as `/proc/<pid>/stat` tells
/// it (field 22), so that a later process with the same pid is another one.
pub fn owner(pid: u32, start: u64) -> u64 {
    (start & 0xffff_ffff) << 32 | u64::from(pid)
}

/// The pid in an [`owner`].
pub fn owner_pid(owner: u64) -> u32 {
    (owner & 0xffff_ffff) as u32
}

/// What a limiter found that should not be. Bits of [`Header::flags`]; they stay set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// An entry of this file was changed by somebody else; its owner put it right.
    pub const OVERWRITTEN: Self = Self(1);
    /// The driver has a version of an intercepted function that the limiter does not know: it passed through.
    pub const UNKNOWN_VERSION: Self = Self(1 << 1);
    /// The container sees a card that its limits do not name: nothing can be allocated there.
    pub const UNLISTED_DEVICE: Self = Self(1 << 2);
    /// More than [`MAX_PROCESSES`] processes wanted to use cards: the others were refused.
    pub const PROCESSES: Self = Self(1 << 3);
    /// The limiter found itself at fault and went on as its rules for that say.
    pub const FAULT: Self = Self(1 << 4);
    /// The driver took more memory for an allocation than was foreseen, for a moment or for good.
    pub const OVER: Self = Self(1 << 5);
    /// A card's time could not be measured, so kernels were not held back.
    pub const UNMEASURED: Self = Self(1 << 6);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::OVERWRITTEN, "overwritten"),
        (Self::UNKNOWN_VERSION, "unknown-version"),
        (Self::UNLISTED_DEVICE, "unlisted-device"),
        (Self::PROCESSES, "processes"),
        (Self::FAULT, "fault"),
        (Self::OVER, "over"),
        (Self::UNMEASURED, "unmeasured"),
    ];

    /// Whether all of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of those that are set, for labels and messages.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| name)
    }
}

impl ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A new file's content: [`BYTES`] long, all but the header zero. What follows the returned bytes is zero as well, so
/// writing them and setting the length makes the same file without holes being filled.
pub fn blank() -> Vec<u8> {
    let mut header = vec![0; size_of::<Header>()];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = header.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(offset_of!(Header, magic), &MAGIC.to_ne_bytes());
    put(offset_of!(Header, version), &VERSION.to_ne_bytes());
    put(offset_of!(Header, bytes), &(BYTES as u32).to_ne_bytes());
    header
}

/// Why a state file cannot be used.
#[derive(Debug)]
pub enum StateError {
    /// Reading failed.
    Read(io::Error),
    /// Not [`BYTES`] long, but so many; one more where it is longer.
    Length(usize),
    /// It does not begin with [`MAGIC`].
    Magic,
    /// Another version's.
    Version(u32),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Length(found) if *found > BYTES => write!(f, "longer than {BYTES} bytes"),
            Self::Length(found) => write!(f, "{found} bytes long, expected {BYTES}"),
            Self::Magic => write!(f, "does not begin as a state file does"),
            Self::Version(found) => write!(f, "version {found}, expected {VERSION}"),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            _ => None,
        }
    }
}

/// What a state file said at one moment. Not one moment for all of it, since processes go on meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What limiters found.
    pub flags: Flags,
    /// The processes that use cards, or did when they ended and nobody has given their memory back yet.
    pub processes: Vec<ProcessSnapshot>,
    /// By position in [`crate::limits::Limits::devices`]; the last ones are unused.
    pub devices: Vec<DeviceSnapshot>,
}

/// One of [`Snapshot::processes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSnapshot {
    /// As the process itself sees it: the last number of `NSpid` in `/proc/<pid on the host>/status`.
    pub pid: u32,
    /// Low half of its start time in clock ticks, field 22 of `/proc/<pid>/stat`.
    pub start: u32,
    /// When it registered, or last found no room for an allocation: nanoseconds of `CLOCK_MONOTONIC`.
    pub seen: u64,
    /// Bytes that it holds of each card.
    pub held: Vec<u64>,
}

/// One of [`Snapshot::devices`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceSnapshot {
    /// [`Device::busy`].
    pub busy: u64,
    /// [`Device::waited`].
    pub waited: u64,
    /// [`Device::refused`].
    pub refused: u64,
}

impl Snapshot {
    /// Reads at most [`BYTES`] and one more. For the host: the file is a tenant's.
    pub fn read(file: impl Read) -> Result<Self, StateError> {
        let mut bytes = Vec::with_capacity(BYTES + 1);
        file.take(BYTES as u64 + 1).read_to_end(&mut bytes).map_err(StateError::Read)?;
        Self::parse(&bytes)
    }

    /// From the whole file's content.
    pub fn parse(bytes: &[u8]) -> Result<Self, StateError> {
        if bytes.len() != BYTES {
            return Err(StateError::Length(bytes.len()));
        }
        if long(bytes, offset_of!(Header, magic)) != MAGIC {
            return Err(StateError::Magic);
        }
        let version = word(bytes, offset_of!(Header, version));
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let device = |d: usize| offset_of!(State, devices) + d * size_of::<Device>();
        let mut processes = Vec::new();
        for i in 0..MAX_PROCESSES {
            let at = offset_of!(State, processes) + i * size_of::<Process>();
            let owner = long(bytes, at + offset_of!(Process, owner));
            if owner == 0 {
                continue;
            }
            let held = |d| long(bytes, device(d) + offset_of!(Device, held) + i * size_of::<AtomicU64>());
            processes.push(ProcessSnapshot {
                pid: owner_pid(owner),
                start: (owner >> 32) as u32,
                seen: long(bytes, at + offset_of!(Process, seen)),
                held: (0..MAX_DEVICES).map(held).collect(),
            });
        }
        let devices = (0..MAX_DEVICES).map(|d| DeviceSnapshot {
            busy: long(bytes, device(d) + offset_of!(Device, busy)),
            waited: long(bytes, device(d) + offset_of!(Device, waited)),
            refused: long(bytes, device(d) + offset_of!(Device, refused)),
        });
        Ok(Self { flags: Flags(word(bytes, offset_of!(Header, flags))), processes, devices: devices.collect() })
    }

    /// Bytes of one card, by its position in the limits, that all processes hold together.
    pub fn held(&self, device: usize) -> u64 {
        let of = |p: &ProcessSnapshot| p.held.get(device).copied().unwrap_or(0);
        self.processes.iter().map(of).fold(0, u64::saturating_add)
    }
}

/// `bytes` is [`BYTES`] long and `at` an offset within [`State`], so there always is a number.
fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file() -> Vec<u8> {
        let mut bytes = blank();
        bytes.resize(BYTES, 0);
        bytes
    }

    #[test]
    fn a_new_file_is_read_and_has_nobody() {
        let snapshot = Snapshot::read(&file()[..]).unwrap();
        assert_eq!(snapshot.processes, []);
        assert_eq!(snapshot.devices, [DeviceSnapshot::default(); MAX_DEVICES]);
        assert_eq!(snapshot.flags.names().count(), 0);
    }

    #[test]
    fn what_stands_in_the_file_is_told() {
        let mut bytes = file();
        let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        let process = offset_of!(State, processes) + 3 * size_of::<Process>();
        let device = offset_of!(State, devices) + size_of::<Device>();
        put(process + offset_of!(Process, owner), owner(77, 0x1_0000_0005));
        put(process + offset_of!(Process, seen), 9);
        put(device + offset_of!(Device, held) + 3 * 8, 4096);
        put(device + offset_of!(Device, refused), 2);
        put(offset_of!(Header, flags), 0b101);
        let snapshot = Snapshot::read(&bytes[..]).unwrap();
        let mut held = vec![0; MAX_DEVICES];
        held[1] = 4096;
        assert_eq!(snapshot.processes, [ProcessSnapshot { pid: 77, start: 5, seen: 9, held }]);
        assert_eq!((snapshot.held(1), snapshot.held(0), snapshot.held(99)), (4096, 0, 0));
        assert_eq!(snapshot.devices[1].refused, 2);
        assert_eq!(snapshot.flags.names().collect::<Vec<_>>(), ["overwritten", "unlisted-device"]);
    }

    #[test]
    fn each_fault_has_its_name() {
        let of = |bytes: &[u8]| Snapshot::read(bytes).unwrap_err().to_string();
        assert_eq!(of(&[]), format!("0 bytes long, expected {BYTES}"));
        assert_eq!(of(&[file(), vec![0; 9]].concat()), format!("longer than {BYTES} bytes"));
        assert_eq!(of(&vec![0; BYTES]), "does not begin as a state file does");
        let mut later = file();
        later[offset_of!(Header, version)] = 9;
        assert_eq!(of(&later), "version 9, expected 1");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_content_is_read_without_harm(noise in proptest::collection::vec((0..BYTES, any::<u8>()), 0..64)) {
            let mut bytes = file();
            for (at, byte) in noise {
                bytes[at] = byte;
            }
            if let Ok(snapshot) = Snapshot::parse(&bytes) {
                let _ = snapshot.held(0);
            }
        }
    }
}
