//! What there is to know of a vendor: the questions that its line of the table answers. No field has a default, so that a
//! new vendor does not compile until each is answered.

use clap::Command;
use kerf::isolation::Isolation;

use crate::device::backend::BackendFactory;
use crate::device::label::Labeller;
use crate::offer::contract::Contract;
use crate::vendor::flags::{BackendOptions, Common, FlagError, Flags};

/// A vendor's GPUs.
pub struct Support {
    /// Its drivers. The first is the one that `--backend auto` tries.
    pub backends: &'static [BackendKind],
    /// The systems for its GPUs whose contracts are served.
    pub systems: &'static [System],
    /// Adds the flags of its systems and of its labels to the command line.
    pub flags: fn(Command) -> Command,
    /// Its labels on the Node; `None`: it has none.
    pub labels: Option<NodeLabels>,
    /// What can hold containers to shares of its GPUs.
    pub enforced_by: &'static [Isolation],
    /// Whether its container runtime looks for the GPUs of a container of `vcuda` in `NVIDIA_VISIBLE_DEVICES`. Programs
    /// of other vendors see the GPUs whose device files they have.
    pub visible_by_env: bool,
}

/// A way to find a vendor's GPUs.
pub struct BackendKind {
    /// The word in `--backend`.
    pub name: &'static str,
    /// What is said of it there.
    pub help: &'static str,
    /// Makes it. An error names the flag that it lacks; `--backend auto` goes without it then.
    pub make: fn(&BackendOptions) -> Result<BackendFactory, FlagError>,
}

/// A system whose contract is served to kubelet.
pub struct System {
    /// The word in `--profile`, logs and metrics.
    pub name: &'static str,
    /// What is said of it there.
    pub help: &'static str,
    /// Its resources that are counted shares, as [`kerf::shares::ShareResources`] reads them: the names that the extender
    /// knows unless it is told others.
    pub resources: &'static [&'static str],
    /// What its flags say. An error names the flag.
    pub contract: fn(&Flags, &Common) -> Result<Contract, FlagError>,
}

/// Labels as a vendor's labeller writes them.
pub struct NodeLabels {
    /// What makes them, from the vendor's flags and the names of all [systems](System) that the node offers.
    pub labeller: fn(&Flags, &[&str]) -> Result<Labeller, FlagError>,
    /// What their keys start with; kerf removes no others, whoever says that they are its own.
    pub prefixes: &'static [&'static str],
    /// A label that DaemonSets select nodes by, with its value: written and never removed.
    pub gate: Option<(&'static str, &'static str)>,
}
