//! The file that a container's processes share: how much of each GPU each holds, and how the GPU's time is spent.
//!
//! Every process of the container that uses a GPU maps it, and all of it is atomic integers: no lock lies in it, so
//! a process that is killed at any instruction leaves nothing to repair. What it held is given back by the next
//! process that finds it gone.
//!
//! A process that has an entry holds a record lock (`fcntl`, `F_SETLK`) on the byte of the file whose offset is the
//! entry's position. The kernel ends the lock with the process, also where that lives in a PID namespace that others
//! cannot see. [`TURN`] is the byte that a process locks while it changes entries of others.
//!
//! The host lays the file anew before each start of a container, in the layout that the container's library knows
//! ([`blank`]). Version 1 is the beginning of version 2, up to and with [`State::devices`].
//!
//! The tenant can overwrite everything in it. The limiter corrects its own entries when it finds them changed, and
//! sets a flag ([`Flags`]); the host reads the file ([`Snapshot`]) and trusts NVML.

use std::io::{self, Read};
use std::mem::{offset_of, size_of};
use std::{fmt, ops};

use crate::limits::MAX_DEVICES;
pub use crate::size::{MAX_PROCESSES, MAX_SHARED, SLICES};
use crate::word::{AtomicU32, AtomicU64};

/// The first eight bytes of the file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"kerfstat");
/// The version of this layout.
pub const VERSION: u32 = 2;
/// An earlier layout, which containers have that were created with an earlier library.
pub const FIRST_VERSION: u32 = 1;
/// The file's exact length.
pub const BYTES: usize = size_of::<State>();
/// The exact length of a file of [`FIRST_VERSION`].
pub const FIRST_BYTES: usize = offset_of!(State, extras);
/// The offset of the byte that a process locks while it changes entries of others.
pub const TURN: usize = MAX_PROCESSES;
/// Length of one slice of [`Device::timeline`], in nanoseconds.
pub const SLICE: u64 = 2_000_000;

/// The whole file, in the machine's byte order.
#[repr(C)]
pub struct State {
    /// Identifies the file and its layout.
    pub header: Header,
    /// The processes that use GPUs. Any other process has not loaded the limiter, or has not used a GPU yet.
    pub processes: [Process; MAX_PROCESSES],
    /// By position in [`crate::limits::Limits::devices`].
    pub devices: [Device; MAX_DEVICES],
    /// By position in [`crate::limits::Limits::devices`].
    pub extras: [Extra; MAX_DEVICES],
    /// Memory that several processes have.
    pub shared: [Shared; MAX_SHARED],
}

/// Identifies the file and its layout.
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
    /// Entries of [`State::processes`] from this index on were never used.
    pub high: AtomicU32,
    /// Entries of [`State::shared`] from this index on were never used.
    pub high_shared: AtomicU64,
    /// Always zero.
    pub reserved: [AtomicU64; 4],
}

/// A process that uses GPUs.
#[repr(C)]
pub struct Process {
    /// An [`owner`]; 0 for a free entry.
    pub owner: AtomicU64,
    /// Inode of the pid namespace that the pid in `owner` belongs to.
    pub namespace: AtomicU64,
    /// When the process registered, or last found no room for an allocation: nanoseconds of `CLOCK_MONOTONIC`.
    pub seen: AtomicU64,
    /// Always zero.
    pub reserved: AtomicU64,
}

/// The container's use of one GPU.
#[repr(C)]
pub struct Device {
    /// Kernels may start from this moment on; nanoseconds of `CLOCK_MONOTONIC`.
    pub due: AtomicU64,
    /// Nanoseconds in which the container's kernels were seen to run, in total; overlaps count once.
    pub busy: AtomicU64,
    /// Nanoseconds for which launches were held back, in total.
    pub waited: AtomicU64,
    /// Allocations that were refused because of the cap, in total.
    pub refused: AtomicU64,
    /// How much of each of the last [`SLICES`] slices is charged: the low half of the slice's number, then nanoseconds.
    pub timeline: [AtomicU64; SLICES],
    /// Bytes that each process holds or is about to hold, by position in [`State::processes`].
    pub taken: [AtomicU64; MAX_PROCESSES],
    /// Bytes that each process holds.
    pub held: [AtomicU64; MAX_PROCESSES],
}

/// More about the container's use of one GPU, by position in [`State::processes`].
#[repr(C)]
pub struct Extra {
    /// The part of [`Device::held`] that was estimated for contexts and the driver's own memory, until the host has
    /// measured it ([`crate::overhead`]).
    pub context: [AtomicU64; MAX_PROCESSES],
    /// How often the bytes that the process holds have changed. It tells the host whether a measurement and what it
    /// read here belong together.
    pub changes: [AtomicU64; MAX_PROCESSES],
}

/// Memory that one process exported and others of the container may have opened. It counts once: for its payer, whose
/// [`Device::held`] includes it, or, where that has ended or freed it, by itself until nobody has it open.
#[repr(C)]
pub struct Shared {
    /// What identifies the memory to all of them; 0 for a free entry.
    pub key: AtomicU64,
    /// How much of the GPU it takes.
    pub bytes: AtomicU64,
    /// The position in [`State::processes`] of the process that pays, plus one; 0 where nobody pays.
    pub payer: AtomicU32,
    /// The GPU's position in the limits.
    pub device: AtomicU32,
    /// A bit for each process that has opened it, by position in [`State::processes`].
    pub users: [AtomicU64; MAX_PROCESSES.div_ceil(64)],
}

/// The value of [`Process::owner`]: a pid, and the low half of the process' start time from `/proc/<pid>/stat`
/// (field 22), so that a later process with the same pid has another value.
pub fn owner(pid: u32, start: u64) -> u64 {
    (start & 0xffff_ffff) << 32 | u64::from(pid)
}

/// The pid in an [`owner`].
pub fn owner_pid(owner: u64) -> u32 {
    (owner & 0xffff_ffff) as u32
}

/// Problems that a limiter found. Bits of [`Header::flags`]; they stay set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// Another process changed an entry of this file; the entry's owner corrected it.
    pub const OVERWRITTEN: Self = Self(1);
    /// The driver has a version of an intercepted function that the limiter does not know: calls went to the driver.
    pub const UNKNOWN_VERSION: Self = Self(1 << 1);
    /// The container sees a GPU that its limits do not name: nothing can be allocated there.
    pub const UNLISTED_DEVICE: Self = Self(1 << 2);
    /// More than [`MAX_PROCESSES`] processes wanted to use GPUs: the others were refused.
    pub const PROCESSES: Self = Self(1 << 3);
    /// The limiter had an internal error and went on by its rules for that.
    pub const FAULT: Self = Self(1 << 4);
    /// The driver took more memory for an allocation than was expected, for a moment or permanently.
    pub const OVER: Self = Self(1 << 5);
    /// A GPU's time could not be measured, so kernels were not held back.
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

    /// Reads the beginning of a state file and no more. For the host: the tenant can set any bits.
    pub fn read(mut file: impl Read) -> Result<Self, StateError> {
        let mut bytes = [0; size_of::<Header>()];
        file.read_exact(&mut bytes).map_err(StateError::Read)?;
        version(&bytes)?;
        Ok(Self(word(&bytes, offset_of!(Header, flags))))
    }

    /// Whether all of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of the set flags, for labels and messages.
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

/// The length of a file of this version.
pub fn length(version: u32) -> usize {
    if version == FIRST_VERSION { FIRST_BYTES } else { BYTES }
}

/// The beginning of a new file of this version: all behind it is zero, so writing the returned bytes and setting the
/// length to [`length`] makes a file without filling holes.
pub fn blank(version: u32) -> Vec<u8> {
    let mut header = vec![0; size_of::<Header>()];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = header.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(offset_of!(Header, magic), &MAGIC.to_ne_bytes());
    put(offset_of!(Header, version), &version.to_ne_bytes());
    put(offset_of!(Header, bytes), &(length(version) as u32).to_ne_bytes());
    header
}

/// Why a state file cannot be used.
#[derive(Debug)]
pub enum StateError {
    /// The file could not be read.
    Read(io::Error),
    /// The file's length, where it is that of no version; one more than that for any longer file.
    Length(usize),
    /// The file does not begin with [`MAGIC`].
    Magic,
    /// The version of a file of another version.
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

/// A state file as it was read. Fields may be of different moments, since processes go on meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Problems that limiters found.
    pub flags: Flags,
    /// Processes that use GPUs, and processes that ended and whose memory was not given back yet.
    pub processes: Vec<ProcessSnapshot>,
    /// By position in [`crate::limits::Limits::devices`]; the entries beyond those are unused.
    pub devices: Vec<DeviceSnapshot>,
}

/// One of [`Snapshot::processes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSnapshot {
    /// Position in [`State::processes`].
    pub slot: usize,
    /// [`Process::owner`].
    pub owner: u64,
    /// The pid that the process itself sees: the last number of `NSpid` in `/proc/<pid on the host>/status`.
    pub pid: u32,
    /// Low half of its start time in clock ticks, field 22 of `/proc/<pid>/stat`.
    pub start: u32,
    /// When the process registered, or last found no room for an allocation: nanoseconds of `CLOCK_MONOTONIC`.
    pub seen: u64,
    /// Bytes that the process holds of each GPU.
    pub held: Vec<u64>,
    /// The part of them that was estimated, of each GPU: [`Extra::context`].
    pub context: Vec<u64>,
    /// [`Extra::changes`] of each GPU.
    pub changes: Vec<u64>,
    /// Whether it has memory of another process open.
    pub opened: bool,
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
    /// Bytes of [`State::shared`] that nobody pays for.
    pub unpaid: u64,
}

impl Snapshot {
    /// Reads at most one byte more than [`BYTES`]. For the host: the tenant can change the file.
    pub fn read(file: impl Read) -> Result<Self, StateError> {
        let mut bytes = Vec::with_capacity(BYTES + 1);
        file.take(BYTES as u64 + 1).read_to_end(&mut bytes).map_err(StateError::Read)?;
        Self::parse(&bytes)
    }

    /// Reads the whole file's content.
    pub fn parse(bytes: &[u8]) -> Result<Self, StateError> {
        if bytes.len() != BYTES && bytes.len() != FIRST_BYTES {
            return Err(StateError::Length(bytes.len()));
        }
        let version = version(bytes)?;
        if length(version) != bytes.len() {
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
            // zero where the file ends before: version 1
            let extra = |d: usize, field: usize| {
                let at = offset_of!(State, extras) + d * size_of::<Extra>() + field;
                long(bytes, at + i * size_of::<AtomicU64>())
            };
            processes.push(ProcessSnapshot {
                slot: i,
                owner,
                pid: owner_pid(owner),
                start: (owner >> 32) as u32,
                seen: long(bytes, at + offset_of!(Process, seen)),
                held: (0..MAX_DEVICES).map(held).collect(),
                context: (0..MAX_DEVICES).map(|d| extra(d, offset_of!(Extra, context))).collect(),
                changes: (0..MAX_DEVICES).map(|d| extra(d, offset_of!(Extra, changes))).collect(),
                opened: entries(bytes)
                    .any(|at| long(bytes, at + offset_of!(Shared, users) + i / 64 * 8) >> (i % 64) & 1 == 1),
            });
        }
        let devices = (0..MAX_DEVICES).map(|d| DeviceSnapshot {
            busy: long(bytes, device(d) + offset_of!(Device, busy)),
            waited: long(bytes, device(d) + offset_of!(Device, waited)),
            refused: long(bytes, device(d) + offset_of!(Device, refused)),
            unpaid: unpaid(bytes, d),
        });
        Ok(Self { flags: Flags(word(bytes, offset_of!(Header, flags))), processes, devices: devices.collect() })
    }

    /// Bytes of one GPU, by its position in the limits, that all processes hold together.
    pub fn held(&self, device: usize) -> u64 {
        let of = |p: &ProcessSnapshot| p.held.get(device).copied().unwrap_or(0);
        let unpaid = self.devices.get(device).map_or(0, |device| device.unpaid);
        self.processes.iter().map(of).fold(unpaid, u64::saturating_add)
    }
}

fn version(bytes: &[u8]) -> Result<u32, StateError> {
    if long(bytes, offset_of!(Header, magic)) != MAGIC {
        return Err(StateError::Magic);
    }
    let version = word(bytes, offset_of!(Header, version));
    if (FIRST_VERSION..=VERSION).contains(&version) { Ok(version) } else { Err(StateError::Version(version)) }
}

/// The offsets of the entries of [`State::shared`] that are in use.
fn entries(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let all = (0..MAX_SHARED).map(|i| offset_of!(State, shared) + i * size_of::<Shared>());
    all.filter(|at| long(bytes, at + offset_of!(Shared, key)) != 0)
}

/// Bytes of shared memory on a GPU that nobody pays for.
fn unpaid(bytes: &[u8], device: usize) -> u64 {
    let counts = |at: &usize| {
        word(bytes, at + offset_of!(Shared, payer)) == 0
            && word(bytes, at + offset_of!(Shared, device)) as usize == device
    };
    entries(bytes).filter(counts).map(|at| long(bytes, at + offset_of!(Shared, bytes))).fold(0, u64::saturating_add)
}

/// Zero behind the end of `bytes`.
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

    fn of(version: u32) -> Vec<u8> {
        let mut bytes = blank(version);
        bytes.resize(length(version), 0);
        bytes
    }

    fn file() -> Vec<u8> {
        of(VERSION)
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
        let (context, changes) = (vec![0; MAX_DEVICES], vec![0; MAX_DEVICES]);
        let owner = owner(77, 5);
        let expected =
            ProcessSnapshot { slot: 3, owner, pid: 77, start: 5, seen: 9, held, context, changes, opened: false };
        assert_eq!(snapshot.processes, [expected]);
        assert_eq!((snapshot.held(1), snapshot.held(0), snapshot.held(99)), (4096, 0, 0));
        assert_eq!(snapshot.devices[1].refused, 2);
        assert_eq!(snapshot.flags.names().collect::<Vec<_>>(), ["overwritten", "unlisted-device"]);
        assert_eq!(Flags::read(&bytes[..]).unwrap(), snapshot.flags);
    }

    /// Containers that an earlier plugin created have the library of that time, and go on with it.
    #[test]
    fn a_file_of_the_first_version_is_as_long_as_it_was_and_is_read() {
        assert_eq!(FIRST_BYTES, 64 + 1024 * 32 + 16 * (32 + 512 * 8 + 2 * 1024 * 8));
        let mut bytes = of(FIRST_VERSION);
        let process = offset_of!(State, processes);
        bytes[process..process + 8].copy_from_slice(&owner(7, 1).to_ne_bytes());
        let snapshot = Snapshot::read(&bytes[..]).unwrap();
        assert_eq!((snapshot.processes[0].pid, &snapshot.processes[0].context[..]), (7, &[0; MAX_DEVICES][..]));
        bytes.resize(BYTES, 0);
        assert_eq!(Snapshot::read(&bytes[..]).unwrap_err().to_string(), "version 1, expected 2");
    }

    #[test]
    fn each_fault_has_its_name() {
        let of = |bytes: &[u8]| Snapshot::read(bytes).unwrap_err().to_string();
        assert_eq!(of(&[]), format!("0 bytes long, expected {BYTES}"));
        assert_eq!(of(&[file(), vec![0; 9]].concat()), format!("longer than {BYTES} bytes"));
        assert_eq!(of(&vec![0; BYTES]), "does not begin as a state file does");
        let mut later = file();
        later[offset_of!(Header, version)] = 9;
        assert_eq!(of(&later), "version 9, expected 2");
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
