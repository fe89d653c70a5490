//! Node labels as the vendors' labellers write them, so that pods and tools that select by them find kerf's nodes too.
//!
//! ```text
//!   cards ---> [amd] [intel] [nvidia] (pure: devices in, labels out) ---> [publish] --> [feature_file], for NFD
//!                                                                            +--------> [node], the Node's own labels
//! ```
//!
//! A fact that a driver does not tell has no label. A card that fell ill or was lost stays labelled until the plugin starts
//! anew: labels say what a node has, the [condition](crate::publish::condition) how it is.
//!
//! Two labels are *gates*: DaemonSets, kerf's own among them, run where they are. A gate is written and never removed,
//! since removing it would end the very program that writes it.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::backend::{HostDevice, Vendor};
use crate::publish::labels::feature_file::FeatureFile;
use crate::publish::labels::flags::{AmdLabel, LabelMode};

/// The longest value, and the longest name behind a key's prefix, that Kubernetes takes.
pub const MAX_LENGTH: usize = 63;
/// gpu-manager's label for the nodes it runs on; `manifests/base` selects them by it.
const VCUDA_GATE: (&str, &str) = ("nvidia-device-enable", "enable");
/// What NFD's rule writes for Intel's plugin; `nfd_labeled_nodes` selects nodes by it.
const INTEL_GATE: (&str, &str) = ("intel.feature.node.kubernetes.io/gpu", "true");

/// Labels by key. Every one is legal in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Takes a label. One that Kubernetes would refuse, or that says nothing, is left out: a label is no place for text.
    pub fn set(&mut self, key: &str, value: impl ToString) {
        let value = value.to_string();
        if value.is_empty() || !legal_key(key) || !legal_value(&value) {
            tracing::debug!(key, value, "no legal label");
            return;
        }
        self.0.insert(key.to_owned(), value);
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All of them, in order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is to be labelled, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where labels go.
    pub mode: LabelMode,
    /// What this plugin is called among those of its node: what it offers.
    pub name: String,
    /// Its feature file.
    pub file: FeatureFile,
    /// What is written.
    pub style: Style,
}

/// What is written beside the plain facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Which of AMD's labels.
    pub amd: BTreeSet<AmdLabel>,
    /// How `nvidia.com/gpu` is offered, if it is.
    pub nvidia: Option<crate::vendor::nvidia::labels::Offer>,
    /// Whether `vcuda` is offered.
    pub vcuda: bool,
}

/// What the Node should say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Labels of each vendor. Of a vendor that is not named nothing is touched.
    pub vendors: BTreeMap<Vendor, Labels>,
    /// Labels that are added where they are missing, and never removed.
    pub gates: Labels,
}

impl Wanted {
    /// The labels of these devices, for the vendors that have some here.
    pub fn of(hosts: &[&HostDevice], style: &Style) -> Self {
        let mut wanted = Self::default();
        for vendor in [Vendor::Amd, Vendor::Intel, Vendor::Nvidia] {
            let own: Vec<&HostDevice> = hosts.iter().copied().filter(|host| host.origin.vendor == vendor).collect();
            if own.is_empty() {
                continue;
            }
            let labels = match vendor {
                Vendor::Amd => crate::vendor::amd::labels::labels(&own, &style.amd),
                Vendor::Intel => {
                    wanted.gates.set(INTEL_GATE.0, INTEL_GATE.1);
                    crate::vendor::intel::labels::labels(&own)
                }
                Vendor::Nvidia => crate::vendor::nvidia::labels::labels(&own, style.nvidia.as_ref()),
                Vendor::Simulated => Labels::default(),
            };
            wanted.vendors.insert(vendor, labels);
        }
        if style.vcuda && !hosts.is_empty() {
            wanted.gates.set(VCUDA_GATE.0, VCUDA_GATE.1);
        }
        wanted
    }
}

/// What the keys of a vendor's labels start with; kerf removes no others, whoever says that they are its own.
pub fn prefixes(vendor: Vendor) -> &'static [&'static str] {
    match vendor {
        Vendor::Amd => &["amd.com/gpu.", "beta.amd.com/gpu."],
        Vendor::Intel => &["gpu.intel.com/"],
        Vendor::Nvidia => &["nvidia.com/gpu.", "nvidia.com/mig", "nvidia.com/cuda."],
        Vendor::Simulated => &[],
    }
}

/// Whose label a key is, if it is any vendor's.
pub(crate) fn vendor(key: &str) -> Option<Vendor> {
    let all = [Vendor::Amd, Vendor::Intel, Vendor::Nvidia];
    all.into_iter().find(|vendor| prefixes(*vendor).iter().any(|prefix| key.starts_with(prefix)))
}

fn ends_plain(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    text.chars().next().is_some_and(plain) && text.chars().next_back().is_some_and(plain)
}

fn legal_value(value: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    value.is_empty() || (value.len() <= MAX_LENGTH && value.chars().all(inner) && ends_plain(value))
}

fn legal_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let part = |part: &str| {
        part.len() <= MAX_LENGTH
            && ends_plain(part)
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    let domain = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(part);
    prefix.is_none_or(domain) && !name.is_empty() && legal_value(name)
}

/// The beginning of a text that is a legal value of at most `most` characters. `blank` decides what stands for a
/// character that is not legal; `None`: nothing.
pub(crate) fn legal(text: &str, most: usize, blank: impl Fn(char) -> Option<char>) -> String {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mapped = text.trim().chars().filter_map(|c| if inner(c) { Some(c) } else { blank(c) });
    let cut: String = mapped.filter(|c| inner(*c)).take(most).collect();
    cut.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_kubernetes_takes_is_a_label() {
        let mut labels = Labels::default();
        for (key, value) in [
            ("amd.com/gpu.vram", "16G"),
            ("amd.com/gpu.vram", ""),
            ("amd.com/gpu.", "1"),
            ("Amd.com/x", "1"),
            ("x", "a b"),
            ("x", "-a"),
            ("x", &"a".repeat(64)),
            ("a/b/c", "1"),
        ] {
            labels.set(key, value);
        }
        labels.set("plain", "a".repeat(63));
        assert_eq!(labels.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["amd.com/gpu.vram", "plain"]);
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_legal_value_or_nothing(text: String, most in 0usize..80) {
            let most = most.min(MAX_LENGTH);
            let value = legal(&text, most, |_| Some('_'));
            prop_assert!(value.len() <= most && legal_value(&value));
            prop_assert!(legal_value(&legal(&text, most, |_| None)));
        }
    }
}
