//! What other code needs to know of a vendor. No field has a default, so that a new vendor does not compile until
//! each is given.

use clap::Command;
use kerf::isolation::Isolation;

use crate::device::backend::BackendFactory;
use crate::device::label::Labeller;
use crate::device::roots::Roots;
use crate::offer::contract::Contract;
use crate::vendor::flags::{BackendOptions, Common, FlagError, Flags};

pub struct Support {
    /// The first is the one that `--backend auto` tries.
    pub backends: &'static [BackendKind],
    /// What on this machine may bring GPUs although its driver shows none, in words, such as a GPU whose driver is not
    /// loaded yet; `--backend auto` then waits for them.
    pub awaited: fn(&Roots) -> Option<String>,
    /// The systems for its GPUs whose contracts are served.
    pub systems: &'static [System],
    /// Adds the flags of its systems and of its labels to the command line.
    pub flags: fn(Command) -> Command,
    /// Its labels on the Node; `None`: it has none.
    pub labels: Option<NodeLabels>,
    /// The kinds of isolation that can enforce shares of its GPUs.
    pub enforced_by: &'static [Isolation],
    /// Whether its container runtime looks for the GPUs of a container of `vcuda` in `NVIDIA_VISIBLE_DEVICES`.
    /// Programs of other vendors see the GPUs whose device files they have.
    pub visible_by_env: bool,
}

/// A way to find a vendor's GPUs.
#[derive(Debug)]
pub struct BackendKind {
    /// Its value in `--backend`.
    pub name: &'static str,
    /// Its help text there.
    pub help: &'static str,
    /// Makes it. An error names the missing flag; `--backend auto` then goes on without it.
    pub make: fn(&BackendOptions) -> Result<BackendFactory, FlagError>,
}

/// A system whose contract is served to kubelet.
#[derive(Debug)]
pub struct System {
    /// Its name in `--profile`, logs and metrics.
    pub name: &'static str,
    /// Its help text there.
    pub help: &'static str,
    /// Its resources that are counted shares, as [`kerf::shares::ShareResources`] reads them: the names that the
    /// extender knows unless it is configured with others.
    pub resources: &'static [&'static str],
    /// The contract for its flags. An error names the flag.
    pub contract: fn(&Flags, &Common) -> Result<Contract, FlagError>,
}

/// Labels as a vendor's labeller writes them.
pub struct NodeLabels {
    /// Made from the vendor's flags and the names of all [systems](System) that the node offers.
    pub labeller: fn(&Flags, &[&str]) -> Result<Labeller, FlagError>,
    /// Prefixes of their keys; kerf removes no other labels, even if the annotation lists them.
    pub prefixes: &'static [&'static str],
    /// A label that DaemonSets select nodes by, with its value: written and never removed.
    pub gate: Option<(&'static str, &'static str)>,
}
