//! What all systems whose contracts are served have in common on the command line. Their flags keep their own
//! names, so that their manifests run unchanged.
//!
//! Those systems take flags with one dash; [`two_dashes`] turns it into two.

use clap::{ArgMatches, FromArgMatches, ValueEnum};
use kerf::shares::PerCard;

use crate::device::roots::Roots;
use crate::offer::order::Order;
use crate::vendor::nvidia::nvml::NvidiaOptions;
use crate::vendor::simulated::file::SimulatedOptions;

/// How shares of several GPUs are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SharePolicy {
    /// From the GPU that is used least.
    Distributed,
    /// From the GPU that is used most.
    Packed,
}

impl From<SharePolicy> for Order {
    fn from(policy: SharePolicy) -> Self {
        match policy {
            SharePolicy::Distributed => Self::Distributed,
            SharePolicy::Packed => Self::Packed,
        }
    }
}

/// The vendors' flags as they were given.
#[derive(Clone, Debug, Default)]
pub struct Flags(ArgMatches);

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.clone()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = matches.clone();
        Ok(())
    }
}

impl Flags {
    /// The flags of one vendor.
    ///
    /// # Errors
    /// Where the command does not have these flags.
    pub fn read<A: FromArgMatches>(&self) -> Result<A, FlagError> {
        A::from_arg_matches(&self.0).map_err(|error| FlagError(error.to_string()))
    }
}

/// Flags that do not go together, or have an illegal value. The text names the flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FlagError(pub String);

/// What any backend may need to know; each takes its part.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// Where the host's files are mounted.
    pub roots: Roots,
    pub nvidia: NvidiaOptions,
    /// `None` without a file that describes simulated GPUs.
    pub simulated: Option<SimulatedOptions>,
    /// Of all vendors: what `vcuda` finds is asked about health as their profiles' GPUs are.
    pub flags: Flags,
}

/// What all contracts need to know.
#[derive(Clone, Debug)]
pub struct Common {
    /// How shares of several GPUs are given out, where the system has no flag of its own for that.
    pub policy: Order,
    /// Whether the extender chooses the GPUs.
    pub placed: bool,
    pub backend: BackendOptions,
}

impl Common {
    /// The number of shares of each GPU, given by `flag`.
    ///
    /// # Errors
    /// Where the extender chooses GPUs and cannot count so many.
    pub fn shares(&self, flag: &str, shares: u32) -> Result<u32, FlagError> {
        match PerCard::new(shares) {
            Err(error) if self.placed => Err(FlagError(format!("--{flag} with --placed: {error}"))),
            _ => Ok(shares),
        }
    }
}

/// Accepted and without effect.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logs")]
pub struct KlogArgs {
    /// How much is logged
    #[arg(long = "v", hide = true, value_name = "LEVEL")]
    pub verbosity: Option<u8>,
    /// Where logs go
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub logtostderr: Option<bool>,
    /// From which severity on
    #[arg(long, hide = true, value_name = "SEVERITY")]
    pub stderrthreshold: Option<String>,
}

/// Arguments with `--` where Go programs take one dash: `-pulse=10`. Arguments after a lone `--` are left as they
/// are.
pub fn two_dashes(args: impl IntoIterator<Item = std::ffi::OsString>) -> Vec<std::ffi::OsString> {
    let mut plain = false;
    let mut words = args.into_iter();
    let program = words.next();
    let rest = words.map(|word| {
        plain |= word == "--";
        let name = word.to_str().and_then(|text| text.strip_prefix('-')).unwrap_or_default();
        let flag = name.split('=').next().unwrap_or_default();
        let long = flag.len() > 1 || name.starts_with("v=");
        if !plain && long && flag.starts_with(|c: char| c.is_ascii_lowercase()) {
            format!("--{name}").into()
        } else {
            word
        }
    });
    program.into_iter().chain(rest.collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_with_one_dash_are_taken() {
        let given =
            ["p", "-pulse=10", "-v=2", "-h", "--log", "debug", "-", "-7", "-enable-monitoring", "--", "-x=1"];
        let made = two_dashes(given.map(Into::into));
        let wanted =
            ["p", "--pulse=10", "--v=2", "-h", "--log", "debug", "-", "-7", "--enable-monitoring", "--", "-x=1"];
        assert_eq!(made, wanted.map(std::ffi::OsString::from));
    }
}
