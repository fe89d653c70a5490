//! What a look at the host's files found: cards, and for each that was left out the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::device::host::HostDevice;
use crate::device::roots::Fault;

/// Cards and remarks of one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// What may be handed out.
    pub devices: Vec<HostDevice>,
    /// What was odd, and what was left out.
    pub remarks: Vec<Remark>,
}

/// Something about a card that an administrator wants to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// What it is about: a card's PCI address or name.
    pub subject: String,
    /// Whether the card is left out because of it.
    pub left_out: bool,
    /// What it is.
    pub why: ScanIssue,
}

/// What is odd about a card.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ScanIssue {
    /// A file of it is missing or wrong.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The device file that a container would need is not there.
    #[error("the host has no device file {}", .0.display())]
    NoDeviceFile(PathBuf),
    /// Its directory names no such node, or several.
    #[error("{} names {found} of {kind}, expected one", path.display())]
    Nodes {
        /// The directory.
        path: PathBuf,
        /// `card` or `renderD`.
        kind: &'static str,
        /// How many it names.
        found: usize,
    },
    /// A card's number leads to another card.
    #[error("{name} belongs to {owner}")]
    Foreign {
        /// The number.
        name: String,
        /// Whose it is.
        owner: String,
    },
    /// Two cards name the same device file, and nothing tells whose it is.
    #[error("{what} is also used by {other}")]
    Twice {
        /// What both have.
        what: String,
        /// The other one.
        other: String,
    },
    /// The compute driver does not know it.
    #[error("the KFD topology has no node with render minor {0}")]
    NotInTopology(u32),
    /// The compute driver knows its minor as that of another card.
    #[error("the KFD topology has render minor {minor} at {owner}")]
    OtherInTopology {
        /// The minor.
        minor: u32,
        /// Where the topology says it is.
        owner: String,
    },
    /// An SR-IOV card whose functions are listed in its place.
    #[error("its {0} SR-IOV functions are listed instead")]
    Functions(u32),
    /// Bound to a driver that gives containers nothing.
    #[error("bound to the driver {0:?}, which this plugin does not serve")]
    Driver(String),
    /// Only its memory's size is unknown: no share of it can be asked for.
    #[error("its memory is not known, so shares of memory are not offered")]
    NoMemory,
    /// More cards than any machine has.
    #[error("beyond the first {0} GPUs")]
    TooMany(usize),
}

impl ScanIssue {
    /// The word used in logs and in the report of `doctor`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.code(),
            Self::NoDeviceFile(_) => "no-device-file",
            Self::Nodes { .. } => "no-single-node",
            Self::Foreign { .. } => "foreign-card",
            Self::Twice { .. } => "named-twice",
            Self::NotInTopology(_) => "not-in-topology",
            Self::OtherInTopology { .. } => "other-in-topology",
            Self::Functions(_) => "functions-instead",
            Self::Driver(_) => "unknown-driver",
            Self::NoMemory => "no-memory-size",
            Self::TooMany(_) => "too-many",
        }
    }
}

/// More cards and partitions than any machine has.
pub(super) const MAX_DEVICES: usize = 512;

impl Scan {
    pub(crate) fn note(&mut self, subject: &str, why: impl Into<ScanIssue>) {
        self.remarks.push(Remark { subject: subject.to_owned(), left_out: false, why: why.into() });
    }

    pub(crate) fn leave_out(&mut self, subject: &str, why: impl Into<ScanIssue>) {
        self.remarks.push(Remark { subject: subject.to_owned(), left_out: true, why: why.into() });
    }

    /// Leaves out every device that shares a device file of its own or an id with another one: of two that claim one
    /// file at least one is wrong, and nothing tells which. Instances (MIG) of one card
    /// share its file by nature.
    pub(crate) fn settle(mut self) -> Self {
        // each claim with the claimant's place, and whether its kin may claim the same
        let mut claims: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
        for (at, host) in self.devices.iter().enumerate() {
            claims.entry(format!("id {}", host.device.id)).or_default().push((at, at.to_string()));
            for (place, node) in host.nodes.iter().enumerate() {
                let kin = host.origin.shares(place).unwrap_or_else(|| at.to_string());
                claims.entry(node.display().to_string()).or_default().push((at, kin));
            }
        }
        let mut out = BTreeSet::new();
        for (what, holders) in claims {
            for (at, kin) in &holders {
                let rival =
                    holders.iter().find(|(_, other)| other != kin).and_then(|(at, _)| self.devices.get(*at));
                if let (Some(own), Some(rival)) = (self.devices.get(*at), rival) {
                    let (subject, other) = (own.subject().to_owned(), rival.subject().to_owned());
                    if out.insert(*at) {
                        self.leave_out(&subject, ScanIssue::Twice { what: what.clone(), other });
                    }
                }
            }
        }
        let mut at = 0;
        self.devices.retain(|_| {
            at += 1;
            !out.contains(&(at - 1))
        });
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

/// The remarks of the last look, so that only news are logged.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Vec<Remark>>);

impl Journal {
    /// Takes the remarks of a look and logs those that the last one had not.
    pub(crate) fn take(&self, backend: &'static str, scan: &Scan) {
        let mut known = self.0.lock();
        for remark in scan.remarks.iter().filter(|remark| !known.contains(remark)) {
            let (gpu, why, code) = (&remark.subject, &remark.why, remark.why.code());
            if remark.left_out {
                tracing::warn!(backend, gpu, code, %why, "GPU left out");
            } else {
                tracing::info!(backend, gpu, code, %why, "card");
            }
        }
        known.clone_from(&scan.remarks);
    }

    /// Those of the last look.
    pub(crate) fn remarks(&self) -> Vec<Remark> {
        self.0.lock().clone()
    }
}
