//! The flags that name vendors: their values come from the table, and so do the vendors' own flags.

use std::sync::LazyLock;

use clap::builder::PossibleValue;
use clap::{Args, Command, ValueEnum};

use crate::device::choice::Choice;
use crate::device::host::Vendor;
use crate::vendor::auto::{self, Candidate};
use crate::vendor::flags::{FlagError, Flags, KlogArgs, SharePolicy};
use crate::vendor::support::{BackendKind, System};
use crate::vendor::{ALL, support};

/// What a node may offer.
#[derive(Clone, Copy, Debug)]
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

/// The first vendor that has GPUs.
pub static AUTO: BackendKind = BackendKind {
    name: "auto",
    help: "NVIDIA, AMD, Intel, then simulated GPUs if a file is given: the first that has GPUs, or whose GPUs are on the \
           PCI bus and may come; no graphics of the processor, and no GPUs of the other vendors",
    make: |options| {
        let asked = ALL.iter().filter(|vendor| **vendor != Vendor::Simulated || options.simulated.is_some());
        let first = asked.filter_map(|vendor| Some((*vendor, support(*vendor).backends.first()?)));
        let candidate = |(vendor, kind): (Vendor, &BackendKind)| -> Result<Candidate, FlagError> {
            let (backend, awaited) = ((kind.make)(options)?, support(vendor).awaited);
            Ok(Candidate { vendor, name: kind.name, backend, awaited })
        };
        Ok(auto::of_vendors(options.roots.clone(), first.map(candidate).collect::<Result<_, _>>()?))
    },
};

static BACKENDS: LazyLock<Vec<&BackendKind>> = LazyLock::new(|| {
    let kinds = ALL.iter().flat_map(|vendor| support(*vendor).backends);
    [&AUTO].into_iter().chain(kinds).collect()
});

impl ValueEnum for &'static BackendKind {
    fn value_variants<'a>() -> &'a [Self] {
        &BACKENDS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name).help(self.help))
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
    /// Which GPUs are offered
    #[command(flatten)]
    pub choice: Choice,
    /// How shared GPUs are given out by deepomatic, nvidia and amd: spread, or one GPU after the other
    #[arg(long, env = "KERF_SHARE_POLICY", value_enum, default_value_t = SharePolicy::Distributed)]
    pub share_policy: SharePolicy,
    /// What the systems and labellers are told
    #[command(flatten)]
    pub vendors: Flags,
    /// Flags of other systems' logs; --log decides here
    #[command(flatten)]
    pub klog: KlogArgs,
}

/// The flags of all vendors.
impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        ALL.iter().fold(command, |command, vendor| (support(*vendor).flags)(command))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
