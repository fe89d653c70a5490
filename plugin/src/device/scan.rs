//! The result of a scan of the host's files: GPUs, and for each that was left out the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use crate::device::host::{HostDevice, Part};
use crate::device::roots::{Fault, Roots};

/// GPUs and remarks of one scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// GPUs that may be handed out.
    pub devices: Vec<HostDevice>,
    /// Oddities, and GPUs that were left out.
    pub remarks: Vec<Remark>,
}

/// Something about a GPU that an administrator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The GPU's PCI address or name.
    pub subject: String,
    /// Whether the GPU is left out because of it.
    pub left_out: bool,
    pub why: ScanIssue,
}

/// What is odd about a GPU.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ScanIssue {
    /// One of its files is missing or wrong.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The device file that a container would need does not exist.
    #[error("the host has no device file {}", .0.display())]
    NoDeviceFile(PathBuf),
    /// Its directory names no node of this kind, or several.
    #[error("{} names {found} of {kind}, expected one", path.display())]
    Nodes {
        path: PathBuf,
        /// `card` or `renderD`.
        kind: &'static str,
        /// How many it names.
        found: usize,
    },
    /// A GPU's number leads to another GPU.
    #[error("{name} belongs to {owner}")]
    Foreign {
        /// The name with that number.
        name: String,
        /// The GPU that it belongs to.
        owner: String,
    },
    /// Two GPUs name the same device file, and it is unknown which is right.
    #[error("{what} is also used by {other}")]
    Twice {
        /// The file or id of both.
        what: String,
        /// The other GPU.
        other: String,
    },
    /// The compute driver does not know it.
    #[error("the KFD topology has no node with render minor {0}")]
    NotInTopology(u32),
    /// The compute driver has its render minor at another GPU.
    #[error("the KFD topology has render minor {minor} at {owner}")]
    OtherInTopology {
        minor: u32,
        /// The GPU by the topology.
        owner: String,
    },
    /// The compute driver has it, and no device with its render minor was found.
    #[error(
        "the KFD topology has it with render minor {minor} at {card}, and no device of the driver has that minor"
    )]
    Unclaimed {
        minor: u32,
        /// The PCI address of its GPU, without the function.
        card: String,
    },
    /// An SR-IOV GPU whose functions are listed in its place.
    #[error("its {0} SR-IOV functions are listed instead")]
    Functions(u32),
    /// An SR-IOV GPU of whose functions none is listed.
    #[error(
        "it has {0} SR-IOV functions, and none of them is bound to a driver that this plugin serves: bind them, or set \
         sriov_numvfs to 0 to have the GPU itself offered"
    )]
    FunctionsElsewhere(u32),
    /// Bound to a driver that containers cannot use.
    #[error("bound to the driver {0:?}, which this plugin does not serve")]
    Driver(String),
    /// The bus shows it, and no driver is bound to it.
    #[error("no driver is bound to it: is the driver installed, and does it know this GPU?")]
    NoDriver,
    /// Its driver is bound to it and does not list it.
    #[error("bound to the driver {0:?}, which does not list it")]
    NotListed(String),
    /// No GPU of its driver can be listed; in words, why.
    #[error("{0}")]
    Unavailable(String),
    /// Its driver lists it and does not answer a question without which it cannot be offered; in the driver's words.
    #[error("its driver does not answer for it: {0}")]
    NoAnswer(String),
    /// Its driver has a file of it, and the bus does not show it any more.
    #[error("{} names it, but the PCI bus does not show it: it may have fallen off the bus", .0.display())]
    Lost(PathBuf),
    /// The driver was told to leave it alone.
    #[error("its driver is configured to leave it alone: {} says so", .0.display())]
    Excluded(PathBuf),
    /// Which device file is its own is not known.
    #[error(
        "its driver does not say which /dev/nvidia<N> is its device file, as on Jetson and in WSL2: no container can be given it"
    )]
    NoMinor,
    /// It is to be divided (MIG), and nothing of it is given out as a part.
    #[error("it is in MIG mode and has no instance")]
    NoInstances,
    /// Only its errors are not known as they happen.
    #[error("its errors are not reported ({0}): its health is what it answers when it is asked")]
    NoEvents(String),
    /// Only the size of its memory is unknown: shares of it are not offered.
    #[error("its memory is not known, so shares of memory are not offered")]
    NoMemory,
    /// Graphics of the processor, which use the machine's memory: there is none to give shares of.
    #[error("it is part of the processor and has no memory of its own, so shares of memory are not offered")]
    NoOwnMemory,
    /// Graphics of the processor, where no backend was named.
    #[error(
        "it is part of the processor and has no memory of its own: --backend auto leaves it out, --backend {0} serves it"
    )]
    Integrated(&'static str),
    /// A GPU beside those of another vendor, where no backend was named.
    #[error(
        "--backend auto serves the GPUs of one vendor, here {served}'s: --backend {own} serves these instead, --profile \
         vcuda,{own} both"
    )]
    OtherVendor {
        /// The backend that is used or waited for.
        served: &'static str,
        /// Its own backend.
        own: &'static str,
    },
    /// Not among the GPUs that are to be offered.
    #[error("--include-gpus does not name it")]
    NotIncluded,
    /// Among those that are not; the expression that names it.
    #[error("--exclude-gpus names it by {0:?}")]
    ExcludedBy(String),
    /// An instance (MIG), of which the profile serves none.
    #[error("instances (MIG) are not to be served")]
    InstancesNotServed,
    /// Its PCI device id is not among those that the profile serves.
    #[error("PCI id {0} is not to be served")]
    IdNotServed(String),
    /// The profile has one name for all GPUs, which are divided in these ways.
    #[error("devices of several layouts ({0}) cannot go by one name")]
    SeveralLayouts(String),
    /// An instance (MIG) whose resource would be named after its profile.
    #[error("the profile of the instance is not known")]
    NoProfile,
    /// Its resource would have this name.
    #[error("{0:?} is not a valid resource name")]
    NoResourceName(String),
    /// Another source of GPUs has its GPU whole, or in parts where this is whole. What this is.
    #[error("the GPU of this {0} is offered in another form as well")]
    OtherForm(&'static str),
    /// A program that was named to tell health. Its subject is that program's name.
    #[error("it does not answer at {}: only the files of the driver tell the GPUs' health until it does", .0.display())]
    NoReport(PathBuf),
    /// An expression that names no GPU. Its subject is the flag.
    #[error(
        "{0:?} names no GPU of this machine: give an index, PCI address or id as kerf-plugin doctor shows them, or model=NAME"
    )]
    NamesNone(String),
    /// More GPUs than any machine has.
    #[error("beyond the first {0} GPUs")]
    TooMany(usize),
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.why)
    }
}

impl Remark {
    /// A GPU that is left out.
    pub fn left_out(host: &HostDevice, why: ScanIssue) -> Self {
        Self { subject: host.subject().to_owned(), left_out: true, why }
    }

    /// Whether something is wrong: not where a GPU is left out as it was asked for, or since others are served.
    pub fn is_problem(&self) -> bool {
        match &self.why {
            ScanIssue::Integrated(_)
            | ScanIssue::Functions(_)
            | ScanIssue::OtherVendor { .. }
            | ScanIssue::NotIncluded
            | ScanIssue::ExcludedBy(_) => false,
            ScanIssue::NamesNone(_) | ScanIssue::NoReport(_) => true,
            _ => self.left_out,
        }
    }
}

impl ScanIssue {
    /// The name in logs and in the report of `doctor`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.code(),
            Self::NoDeviceFile(_) => "no-device-file",
            Self::Nodes { .. } => "no-single-node",
            Self::Foreign { .. } => "foreign-card",
            Self::Twice { .. } => "named-twice",
            Self::NotInTopology(_) => "not-in-topology",
            Self::OtherInTopology { .. } => "other-in-topology",
            Self::Unclaimed { .. } => "unclaimed-node",
            Self::Functions(_) => "functions-instead",
            Self::FunctionsElsewhere(_) => "functions-elsewhere",
            Self::Driver(_) => "unknown-driver",
            Self::NoDriver => "no-driver",
            Self::NotListed(_) => "not-listed",
            Self::Unavailable(_) => "driver-unavailable",
            Self::NoAnswer(_) => "no-answer",
            Self::Lost(_) => "lost",
            Self::Excluded(_) => "excluded",
            Self::NoMinor => "no-minor-number",
            Self::NoInstances => "no-instances",
            Self::NoEvents(_) => "no-events",
            Self::NoMemory => "no-memory-size",
            Self::NoOwnMemory => "no-own-memory",
            Self::Integrated(_) => "integrated",
            Self::OtherVendor { .. } => "other-vendor",
            Self::NotIncluded => "not-included",
            Self::ExcludedBy(_) => "excluded-by-flag",
            Self::InstancesNotServed => "instances-not-served",
            Self::IdNotServed(_) => "id-not-served",
            Self::SeveralLayouts(_) => "several-layouts",
            Self::NoProfile => "no-profile",
            Self::NoResourceName(_) => "no-resource-name",
            Self::OtherForm(_) => "other-form",
            Self::NoReport(_) => "no-health-report",
            Self::NamesNone(_) => "names-none",
            Self::TooMany(_) => "too-many",
        }
    }
}

/// The device file `/dev/<name>` as a path on the host.
pub(crate) fn node(roots: &Roots, name: &str) -> Result<PathBuf, ScanIssue> {
    roots.node(name).ok_or_else(|| ScanIssue::NoDeviceFile(Path::new("/dev").join(name)))
}

/// More GPUs and partitions than any machine has.
pub(crate) const MAX_DEVICES: usize = 512;

impl Scan {
    pub(crate) fn note(&mut self, subject: &str, why: impl Into<ScanIssue>) {
        self.remarks.push(Remark { subject: subject.to_owned(), left_out: false, why: why.into() });
    }

    /// What was read. Where it could not be, a remark says so and it is left at its default.
    pub(crate) fn noted<T: Default>(&mut self, subject: &str, read: Result<T, impl Into<ScanIssue>>) -> T {
        read.unwrap_or_else(|why| {
            self.note(subject, why);
            T::default()
        })
    }

    pub(crate) fn leave_out(&mut self, subject: &str, why: impl Into<ScanIssue>) {
        self.remarks.push(Remark { subject: subject.to_owned(), left_out: true, why: why.into() });
    }

    /// Leaves out every device that shares a device file of its own, an id or an address with another one: of two that
    /// claim one file at least one is wrong, and it is unknown which. Instances (MIG) of one GPU share its file and
    /// address by nature.
    pub(crate) fn settle(mut self) -> Self {
        // each claim with the claimant's index, and whether other devices of its kind may claim the same
        let mut claims: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
        for (at, host) in self.devices.iter().enumerate() {
            claims.entry(format!("id {}", host.device.id)).or_default().push((at, at.to_string()));
            if host.origin.part == Part::Whole && !host.pci.is_empty() {
                claims.entry(format!("PCI address {}", host.pci)).or_default().push((at, at.to_string()));
            }
            for (place, node) in host.nodes.iter().enumerate() {
                let kin = host.origin.shares(place).unwrap_or_else(|| at.to_string());
                claims.entry(node.display().to_string()).or_default().push((at, kin));
            }
        }
        let mut out = BTreeSet::new();
        let subjects: Vec<String> = self.devices.iter().map(|host| host.subject().to_owned()).collect();
        for (what, holders) in claims {
            for (at, kin) in &holders {
                let Some((rival, _)) = holders.iter().find(|(_, other)| other != kin) else { continue };
                if out.insert(*at) {
                    // at one address both have that for a name
                    let alike = subjects[*at] == subjects[*rival];
                    let other =
                        if alike { self.devices[*rival].device.id.to_string() } else { subjects[*rival].clone() };
                    let why = ScanIssue::Twice { what: what.clone(), other };
                    self.leave_out(&subjects[*at], why);
                }
            }
        }
        let mut places = 0usize..;
        self.devices.retain(|_| places.next().is_some_and(|at| !out.contains(&at)));
        self.devices.sort_by(|a, b| (a.device.index, &a.device.id).cmp(&(b.device.index, &b.device.id)));
        if let Some(host) = self.devices.get(MAX_DEVICES) {
            let subject = host.subject().to_owned();
            self.devices.truncate(MAX_DEVICES);
            self.leave_out(&subject, ScanIssue::TooMany(MAX_DEVICES));
        }
        self.remarks.sort_unstable();
        self.remarks.dedup();
        self
    }
}
