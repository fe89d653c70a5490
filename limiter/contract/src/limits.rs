//! The read-only file that holds the limits of a container.
//!
//! ```text
//! kerf-limits 1
//! device GPU-5c2b8f1e-7d54-4f0e-9a41-0c1d2e3f4a5b memory 8053063680 core 50 ceiling 80 context 0
//! end
//! ```
//!
//! One line for each GPU, in the order in which the container sees them. The last line reveals a file that was cut
//! short. Reading is strict: any other form is refused, with the line's number.

use std::fmt::{self, Write as _};

/// The only version that is written and read.
pub const VERSION: u32 = 1;
/// The longest file that is read, in bytes.
pub const MAX_BYTES: usize = 16 << 10;
/// The most GPUs of one container that can be limited.
pub const MAX_DEVICES: usize = 16;
/// The longest uuid, in bytes.
pub const MAX_UUID: usize = 96;

/// The limits of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One for each GPU, in the order in which the container sees them; 1 to [`MAX_DEVICES`], no uuid twice.
    devices: Vec<DeviceLimits>,
}

/// The limits of one container on one GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// The driver's uuid, with its prefix `GPU-`.
    pub uuid: String,
    /// The most bytes of the GPU's memory that all processes of the container hold together.
    pub memory: u64,
    /// `vcuda-core`: percent of the GPU's time that the container gets whenever it wants it; 1 to 100.
    pub core: u8,
    /// `vcuda-core-limit`: percent that it may use while the neighbours leave it idle; at least `core`, at most 100.
    /// Equal to `core` where the pod has no annotation. 100 means no limit.
    pub ceiling: u8,
    /// Bytes that are counted for each process with a context on the GPU, besides its allocations. The driver takes
    /// them for itself and does not tell how many; 0 counts none.
    pub context: u64,
}

/// Why a limits file is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitsError {
    /// Longer than [`MAX_BYTES`].
    TooLong,
    /// Bytes that are not ASCII text.
    NotText,
    /// The first line is not `kerf-limits <version>`.
    NoHeader,
    /// The version of a file of another version.
    Version(u32),
    /// A line that is not a device line: its number, counted from 1.
    Line(usize),
    /// A value out of range: the line's number and the word before the value.
    Value(usize, &'static str),
    /// A uuid that an earlier line has: the line's number.
    Twice(usize),
    /// The number of devices, where there is none or more than [`MAX_DEVICES`].
    Devices(usize),
    /// `end` is missing, or something follows it: the file was cut or joined.
    NoEnd,
}

impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {MAX_BYTES} bytes"),
            Self::NotText => write!(f, "not ASCII text"),
            Self::NoHeader => write!(f, "line 1 is not \"kerf-limits {VERSION}\""),
            Self::Version(found) => write!(f, "version {found}, expected {VERSION}"),
            Self::Line(line) => write!(
                f,
                "line {line} is not \"device <uuid> memory <bytes> core <percent> ceiling <percent> context <bytes>\""
            ),
            Self::Value(line, word) => write!(f, "line {line}: {word} is out of range"),
            Self::Twice(line) => write!(f, "line {line}: the same uuid again"),
            Self::Devices(found) => write!(f, "{found} devices, expected 1 to {MAX_DEVICES}"),
            Self::NoEnd => write!(f, "the last line is not \"end\""),
        }
    }
}

impl std::error::Error for LimitsError {}

impl DeviceLimits {
    fn check(&self, line: usize) -> Result<(), LimitsError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if self.uuid.is_empty() || self.uuid.len() > MAX_UUID || !self.uuid.bytes().all(legal) {
            return Err(LimitsError::Value(line, "device"));
        }
        if self.memory == 0 || self.memory > i64::MAX as u64 {
            return Err(LimitsError::Value(line, "memory"));
        }
        if !(1..=100).contains(&self.core) {
            return Err(LimitsError::Value(line, "core"));
        }
        if !(self.core..=100).contains(&self.ceiling) {
            return Err(LimitsError::Value(line, "ceiling"));
        }
        if self.context > self.memory {
            return Err(LimitsError::Value(line, "context"));
        }
        Ok(())
    }
}

impl Limits {
    /// Makes the same checks as [`Limits::parse`]; errors count lines as they will be written.
    pub fn new(devices: Vec<DeviceLimits>) -> Result<Self, LimitsError> {
        if devices.is_empty() || devices.len() > MAX_DEVICES {
            return Err(LimitsError::Devices(devices.len()));
        }
        for (i, device) in devices.iter().enumerate() {
            device.check(i + 2)?;
            if devices.iter().take(i).any(|other| other.uuid == device.uuid) {
                return Err(LimitsError::Twice(i + 2));
            }
        }
        Ok(Self { devices })
    }

    /// One for each GPU, in the order in which the container sees them.
    pub fn devices(&self) -> &[DeviceLimits] {
        &self.devices
    }

    /// Reads a file's content, of at most [`MAX_BYTES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, LimitsError> {
        if bytes.len() > MAX_BYTES {
            return Err(LimitsError::TooLong);
        }
        if !bytes.is_ascii() {
            return Err(LimitsError::NotText);
        }
        let text = str::from_utf8(bytes).map_err(|_| LimitsError::NotText)?;
        let (first, rest) = text.split_once('\n').ok_or(LimitsError::NoHeader)?;
        let version = first.strip_prefix("kerf-limits ").and_then(number).ok_or(LimitsError::NoHeader)?;
        if version != u64::from(VERSION) {
            return Err(LimitsError::Version(u32::try_from(version).unwrap_or(u32::MAX)));
        }
        let body = rest.strip_suffix("end\n").ok_or(LimitsError::NoEnd)?;
        let mut devices = Vec::new();
        for (i, line) in body.split_terminator('\n').enumerate() {
            if devices.len() == MAX_DEVICES {
                return Err(LimitsError::Devices(MAX_DEVICES + 1));
            }
            devices.push(device(line, i + 2)?);
        }
        // "...\nend\n": the text before "end" must end with a line feed
        if !body.is_empty() && !body.ends_with('\n') {
            return Err(LimitsError::NoEnd);
        }
        Self::new(devices)
    }

    /// The file's content; [`Limits::parse`] of it is `self`.
    pub fn render(&self) -> String {
        let mut text = format!("kerf-limits {VERSION}\n");
        for d in &self.devices {
            let DeviceLimits { uuid, memory, core, ceiling, context } = d;
            // writing to a String cannot fail
            let _ = writeln!(text, "device {uuid} memory {memory} core {core} ceiling {ceiling} context {context}");
        }
        text.push_str("end\n");
        text
    }
}

fn device(text: &str, line: usize) -> Result<DeviceLimits, LimitsError> {
    let words: Vec<&str> = text.splitn(11, ' ').collect();
    let ["device", uuid, "memory", memory, "core", core, "ceiling", ceiling, "context", context] = words[..] else {
        return Err(LimitsError::Line(line));
    };
    let percent =
        |text, word| number(text).and_then(|n| u8::try_from(n).ok()).ok_or(LimitsError::Value(line, word));
    Ok(DeviceLimits {
        uuid: uuid.to_owned(),
        memory: number(memory).ok_or(LimitsError::Value(line, "memory"))?,
        core: percent(core, "core")?,
        ceiling: percent(ceiling, "ceiling")?,
        context: number(context).ok_or(LimitsError::Value(line, "context"))?,
    })
}

/// Digits only, without leading zeros: each number can be written in one way only.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_device() -> impl Strategy<Value = DeviceLimits> {
        ("GPU-[a-f0-9-]{1,40}", 1..=i64::MAX as u64, 1..=100_u8, any::<u64>(), any::<u8>()).prop_map(
            |(uuid, memory, core, context, burst)| DeviceLimits {
                uuid,
                memory,
                core,
                ceiling: core + burst % (101 - core),
                context: context % (memory + 1),
            },
        )
    }

    fn any_limits() -> impl Strategy<Value = Limits> {
        vec(any_device(), 1..=MAX_DEVICES).prop_filter_map("uuids differ", |devices| Limits::new(devices).ok())
    }

    fn half() -> DeviceLimits {
        DeviceLimits { uuid: "GPU-1".into(), memory: 8_053_063_680, core: 50, ceiling: 80, context: 0 }
    }

    #[test]
    fn the_example_of_the_documentation_is_what_is_written() {
        let text = Limits::new(vec![half()]).unwrap().render();
        assert_eq!(text, "kerf-limits 1\ndevice GPU-1 memory 8053063680 core 50 ceiling 80 context 0\nend\n");
    }

    #[test]
    fn each_fault_has_its_name() {
        let line = "device GPU-1 memory 1 core 50 ceiling 80 context 0\n";
        let of = |text: &str| Limits::parse(text.as_bytes()).unwrap_err();
        let with = |line: &str| of(&format!("kerf-limits 1\n{line}end\n"));
        assert_eq!(of(""), LimitsError::NoHeader);
        assert_eq!(of("nonsense\n"), LimitsError::NoHeader);
        assert_eq!(of(&format!("kerf-limits 2\n{line}end\n")), LimitsError::Version(2));
        assert_eq!(of(&format!("kerf-limits 1\n{line}")), LimitsError::NoEnd);
        assert_eq!(of(&format!("kerf-limits 1\n{line}end\nend\n")), LimitsError::Line(3));
        assert_eq!(of("kerf-limits 1\nend\n"), LimitsError::Devices(0));
        assert_eq!(with("device GPU-1 memory 1 core 50 ceiling 80 context 0 more\n"), LimitsError::Line(2));
        assert_eq!(with(&line.repeat(2)), LimitsError::Twice(3));
        assert_eq!(with(&line.replace("memory 1", "memory 01")), LimitsError::Value(2, "memory"));
        assert_eq!(with(&line.replace("memory 1", "memory 0")), LimitsError::Value(2, "memory"));
        assert_eq!(with(&line.replace("core 50", "core 0")), LimitsError::Value(2, "core"));
        assert_eq!(with(&line.replace("80", "49")), LimitsError::Value(2, "ceiling"));
        assert_eq!(with(&line.replace("80", "101")), LimitsError::Value(2, "ceiling"));
        assert_eq!(with(&line.replace("context 0", "context 2")), LimitsError::Value(2, "context"));
        assert_eq!(with(&line.replace("GPU-1", "GPU/1")), LimitsError::Value(2, "device"));
        assert_eq!(with(line.trim_end()), LimitsError::NoEnd);
        assert_eq!(of(&"x".repeat(MAX_BYTES + 1)), LimitsError::TooLong);
        assert_eq!(of("kerf-limits 1\né"), LimitsError::NotText);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(limits in any_limits()) {
            let text = limits.render();
            prop_assert!(text.len() <= MAX_BYTES);
            prop_assert_eq!(Limits::parse(text.as_bytes()), Ok(limits));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..400)) {
            let _ = Limits::parse(&bytes);
        }

        #[test]
        fn a_shortened_file_is_refused(limits in any_limits(), cut in any::<prop::sample::Index>()) {
            let text = limits.render();
            let shorter = &text.as_bytes()[..cut.index(text.len())];
            prop_assert!(Limits::parse(shorter).is_err());
        }

        #[test]
        fn what_is_read_is_written_the_same(limits in any_limits(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = limits.render().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Limits::parse(&bytes) {
                let written = read.render();
                prop_assert_eq!(written.as_bytes(), &bytes[..]);
            }
        }
    }
}
