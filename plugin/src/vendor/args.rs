//! The flags that name vendors: their values come from the table, and so do the vendors' own flags.

use std::sync::LazyLock;

use clap::builder::PossibleValue;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};

use crate::device::backend::BackendFactory;
use crate::vendor::auto;
use crate::vendor::flags::{BackendOptions, FlagError, Flags, KlogArgs, SharePolicy};
use crate::vendor::support::{BackendKind, System};
use crate::vendor::{ALL, support};

/// What a node may offer.
#[derive(Clone, Copy)]
pub enum ProfileName {
    /// vcuda-core and vcuda-memory, placed by the extender.
    Vcuda,
    /// The contract of another system.
    Of(&'static System),
}

impl ProfileName {
    /// The name in flags, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vcuda => "vcuda",
            Self::Of(system) => system.name,
        }
    }
}

/// `vcuda`, other systems for a vendor's GPUs, then the vendors' own by name. The Node's annotations list labels
/// under these names in this order.
static PROFILES: LazyLock<Vec<ProfileName>> = LazyLock::new(|| {
    let mut systems: Vec<(bool, &System)> = Vec::new();
    for support in ALL.iter().map(|vendor| support(*vendor)) {
        let own = |system: &System| support.backends.iter().any(|kind| kind.name == system.name);
        systems.extend(support.systems.iter().map(|system| (own(system), system)));
    }
    systems.sort_by_key(|(own, system)| (*own, system.name));
    [ProfileName::Vcuda].into_iter().chain(systems.into_iter().map(|(_, system)| ProfileName::Of(system))).collect()
});

impl ValueEnum for ProfileName {
    fn value_variants<'a>() -> &'a [Self] {
        &PROFILES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Vcuda => PossibleValue::new("vcuda").help("vcuda-core and vcuda-memory, placed by the extender"),
            Self::Of(system) => PossibleValue::new(system.name).help(system.help),
        })
    }
}

impl std::fmt::Debug for ProfileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which driver is asked for GPUs.
#[derive(Clone, Copy)]
pub enum BackendName {
    /// The first that has some.
    Auto,
    /// One alone.
    Of(&'static BackendKind),
}

static BACKENDS: LazyLock<Vec<BackendName>> = LazyLock::new(|| {
    let kinds = ALL.iter().flat_map(|vendor| support(*vendor).backends);
    [BackendName::Auto].into_iter().chain(kinds.map(BackendName::Of)).collect()
});

impl BackendName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Of(kind) => kind.name,
        }
    }

    /// Makes the backend.
    ///
    /// # Errors
    /// A flag that it needs is missing.
    pub fn factory(self, options: &BackendOptions) -> Result<BackendFactory, FlagError> {
        match self {
            Self::Auto => {
                let first = ALL.iter().filter_map(|vendor| support(*vendor).backends.first());
                Ok(auto::first_of(first.filter_map(|kind| (kind.make)(options).ok())))
            }
            Self::Of(kind) => (kind.make)(options),
        }
    }
}

impl ValueEnum for BackendName {
    fn value_variants<'a>() -> &'a [Self] {
        &BACKENDS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Auto => PossibleValue::new("auto")
                .help("NVIDIA, AMD, Intel, then simulated GPUs if a file is given: the first that has GPUs"),
            Self::Of(kind) => PossibleValue::new(kind.name).help(kind.help),
        })
    }
}

impl std::fmt::Debug for BackendName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the profiles beside `vcuda` are told.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Profiles")]
pub struct ProfileArgs {
    /// What the node offers; several names joined by commas
    #[arg(long, env = "KERF_PROFILE", value_enum, value_delimiter = ',', default_value = "vcuda")]
    pub profile: Vec<ProfileName>,
    /// Have kerf's extender choose the GPUs of the pods of all profiles: needs --node-name and the API server
    #[arg(long, env = "KERF_PLACED", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub placed: bool,
    /// How shared GPUs are given out by deepomatic, nvidia and amd: spread, or one GPU after the other
    #[arg(long, env = "KERF_SHARE_POLICY", value_enum, default_value_t = SharePolicy::Distributed)]
    pub share_policy: SharePolicy,
    /// What the systems and labellers are told
    #[command(flatten)]
    pub vendors: VendorArgs,
    /// Flags of other systems' logs; --log decides here
    #[command(flatten)]
    pub klog: KlogArgs,
}

/// The flags of all vendors.
#[derive(Clone, Debug, Default)]
pub struct VendorArgs {
    /// As they were given.
    pub flags: Flags,
}

impl Args for VendorArgs {
    fn augment_args(command: Command) -> Command {
        ALL.iter().fold(command, |command, vendor| (support(*vendor).flags)(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for VendorArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { flags: Flags::new(matches.clone()) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.flags = Flags::new(matches.clone());
        Ok(())
    }
}
