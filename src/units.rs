//! Quantities as integers, each with its own type: no floats, no bare `u64` for memory.

use serde::{Deserialize, Serialize};

/// MiB in one unit of `<D>/vcuda-memory`.
pub const MEMORY_UNIT: Mib = Mib(256);
/// Thousandths of a card in one unit of `<D>/vcuda-core`.
pub const CORE_UNIT: Milli = Milli(10);

/// Compute, in thousandths of one card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Milli(pub u32);

impl Milli {
    pub const WHOLE: Self = Self(1000);

    /// From units of `<D>/vcuda-core` (100 = one card); `None` where the product does not fit.
    pub fn from_core_units(units: u64) -> Option<Self> {
        u32::try_from(units).ok()?.checked_mul(CORE_UNIT.0).map(Self)
    }

    /// In units of `<D>/vcuda-core`, rounded up.
    pub fn to_core_units(self) -> u32 {
        self.0.div_ceil(CORE_UNIT.0)
    }

    /// As a fraction of one card, for reports only.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE.0)
    }
}

/// Card memory, in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mib(pub u64);

impl Mib {
    /// From units of `<D>/vcuda-memory` (256 MiB each); `None` where the product does not fit.
    pub fn from_memory_units(units: u64) -> Option<Self> {
        units.checked_mul(MEMORY_UNIT.0).map(Self)
    }

    /// In whole units of `<D>/vcuda-memory`, rounded down.
    pub fn to_memory_units(self) -> u64 {
        self.0 / MEMORY_UNIT.0
    }

    /// In bytes, saturating.
    pub fn bytes(self) -> u64 {
        self.0.saturating_mul(1 << 20)
    }
}

/// An amount of *one* card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Share {
    /// Thousandths of the card's compute.
    pub compute: Milli,
    /// MiB of the card's memory.
    pub memory: Mib,
}

impl Share {
    pub const ZERO: Self = Self::new(0, 0);

    /// `compute` in thousandths of a card, `memory` in MiB.
    pub const fn new(compute: u32, memory: u64) -> Self {
        Self { compute: Milli(compute), memory: Mib(memory) }
    }

    /// Whether both amounts are within `free`.
    pub fn fits_in(self, free: Self) -> bool {
        self.compute <= free.compute && self.memory <= free.memory
    }

    pub fn saturating_add(self, other: Self) -> Self {
        Self {
            compute: Milli(self.compute.0.saturating_add(other.compute.0)),
            memory: Mib(self.memory.0.saturating_add(other.memory.0)),
        }
    }

    pub fn saturating_sub(self, other: Self) -> Self {
        Self {
            compute: Milli(self.compute.0.saturating_sub(other.compute.0)),
            memory: Mib(self.memory.0.saturating_sub(other.memory.0)),
        }
    }

    pub fn max(self, other: Self) -> Self {
        Self { compute: self.compute.max(other.compute), memory: self.memory.max(other.memory) }
    }
}

/// Milliseconds of a clock that the caller owns. The domain never reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// The factor of a suffix, as a multiplier and a divisor.
fn scale(suffix: &str) -> Result<(u128, u128), QuantityError> {
    let ten = |power: u32| 10u128.checked_pow(power).ok_or(QuantityError::TooLarge);
    Ok(match suffix {
        "" => (1, 1),
        "n" => (1, ten(9)?),
        "u" => (1, ten(6)?),
        "m" => (1, ten(3)?),
        "k" => (ten(3)?, 1),
        "M" => (ten(6)?, 1),
        "G" => (ten(9)?, 1),
        "T" => (ten(12)?, 1),
        "P" => (ten(15)?, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "E" => (ten(18)?, 1),
        "Ei" => (1 << 60, 1),
        other => {
            let exponent = other.strip_prefix(['e', 'E']).ok_or(QuantityError::NotANumber)?;
            let (below, digits) = match exponent.strip_prefix('-') {
                Some(digits) => (true, digits),
                None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
            };
            if digits.is_empty() || digits.bytes().any(|digit| !digit.is_ascii_digit()) {
                return Err(QuantityError::NotANumber);
            }
            let power = digits.parse::<u32>().map_err(|_| QuantityError::TooLarge).and_then(ten);
            if below { (1, power.map_err(|_| QuantityError::Fraction)?) } else { (power?, 1) }
        }
    })
}

/// Reads an amount of an extended resource: any of Kubernetes' quantities whose value is a whole number, as `50`, `50.0`,
/// `50000m`, `5e1` and `1Ki` (`k8s.io/apimachinery/pkg/api/resource`).
///
/// # Errors
/// [`QuantityError`] where the text is not a number, negative, not whole, or larger than `u64`.
pub fn parse_quantity(text: &str) -> Result<u64, QuantityError> {
    let positive = text.strip_prefix('+').unwrap_or(text);
    if positive.starts_with('-') {
        return Err(QuantityError::Negative);
    }
    let end = positive.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(positive.len());
    let (number, suffix) = positive.split_at(end);
    let (units, parts) = number.split_once('.').unwrap_or((number, ""));
    if units.is_empty() && parts.is_empty() || parts.contains('.') {
        return Err(QuantityError::NotANumber);
    }
    let (units, parts) = (units.trim_start_matches('0'), parts.trim_end_matches('0'));
    let (times, over) = match scale(suffix) {
        // whatever it is multiplied by
        Err(QuantityError::TooLarge | QuantityError::Fraction) if units.is_empty() && parts.is_empty() => (1, 1),
        scale => scale?,
    };
    // more parts than this are of nothing whole, whatever the suffix
    let over = u32::try_from(parts.len()).ok().and_then(|parts| 10u128.checked_pow(parts)?.checked_mul(over));
    let over = over.ok_or(QuantityError::Fraction)?;
    let digits = format!("{units}{parts}");
    let digits: u128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| QuantityError::TooLarge)? };
    let value = digits.checked_mul(times).ok_or(QuantityError::TooLarge)?;
    match value.checked_rem(over) {
        Some(0) => u64::try_from(value / over).map_err(|_| QuantityError::TooLarge),
        _ => Err(QuantityError::Fraction),
    }
}

/// Reads an amount of cores or memory as the API server writes it (`500m`, `1.5`, `2Gi`), in thousandths and rounded
/// up; `None` where it is not an amount, or too large.
pub fn parse_thousandths(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (units, parts) = number.split_once('.').unwrap_or((number, ""));
    if units.is_empty() && parts.is_empty() || parts.len() > 18 {
        return None;
    }
    let digits: u128 = format!("{units}{parts}").parse().ok()?;
    let (times, over) = scale(suffix).ok()?;
    let over = 10u128.checked_pow(u32::try_from(parts.len()).ok()?)?.checked_mul(over)?;
    u64::try_from(digits.checked_mul(times)?.checked_mul(1000)?.div_ceil(over)).ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("must not be negative")]
    Negative,
    #[error("must be a whole number")]
    Fraction,
    #[error("is not a number")]
    NotANumber,
    #[error("is too large")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, value) in [("0", 0), ("50", 50), ("1k", 1000), ("2Ki", 2048), ("2e3", 2000), ("+7", 7)]
            .into_iter()
            .chain([
                ("50.0", 50),
                ("50000m", 50),
                ("50.", 50),
                ("5e+1", 50),
                ("500e-1", 50),
                ("0.5k", 500),
                (".5Ki", 512),
            ])
            .chain([("1Ei", 1 << 60), ("1E", 1_000_000_000_000_000_000), ("007", 7), ("0e999", 0), ("0m", 0)])
        {
            assert_eq!(parse_quantity(text), Ok(value), "{text}");
        }
    }

    #[test]
    fn thousandths_are_read_with_every_suffix() {
        for (text, value) in [
            ("1", Some(1000)),
            ("500m", Some(500)),
            ("1.5", Some(1500)),
            (".5", Some(500)),
            ("100u", Some(1)),
            ("2Ki", Some(2_048_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("1e3", Some(1_000_000)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("99999999999999999999P", None),
        ] {
            assert_eq!(parse_thousandths(text), value, "{text}");
        }
    }

    #[test]
    fn bad_quantities_are_named() {
        use QuantityError::*;
        for (text, error) in [
            ("-1", Negative),
            ("0.5", Fraction),
            ("500m", Fraction),
            ("", NotANumber),
            ("x", NotANumber),
            ("k", NotANumber),
            (".5", Fraction),
            (".", NotANumber),
            ("1.2.3", NotANumber),
            ("1e", NotANumber),
            ("1e1.5", NotANumber),
            ("1e99999999999999999999", TooLarge),
            ("16Ei", TooLarge),
            ("1e-1", Fraction),
            ("1e-999", Fraction),
            ("1.0000000000000000000000000000000000000000001", Fraction),
            ("99999999999999999999", TooLarge),
            ("1e30", TooLarge),
            ("18446744073709551615k", TooLarge),
        ] {
            assert_eq!(parse_quantity(text), Err(error), "{text}");
        }
    }
}
