//! Labels of a Node, as Kubernetes accepts them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kerf::ids::syntax::{is_label, is_subdomain};

use crate::device::host::HostDevice;

/// The longest value, and the longest name after a key's prefix, that Kubernetes accepts.
pub const MAX_LENGTH: usize = 63;

/// Labels by key. Every one is legal in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Adds a label. One that Kubernetes would refuse, or whose value is empty, is left out: values are never
    /// changed to fit.
    pub fn set(&mut self, key: &str, value: impl ToString) {
        let value = value.to_string();
        if value.is_empty() || !legal_key(key) || !legal_value(&value) {
            tracing::debug!(key, value, "not a valid label");
            return;
        }
        self.0.insert(key.to_owned(), value);
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// In order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

type Make = dyn Fn(&[&HostDevice]) -> Labels + Send + Sync;

/// Makes the labels of a vendor's devices, as configured by its flags.
#[derive(Clone)]
pub struct Labeller(Arc<Make>);

impl Labeller {
    /// `labels` already knows the vendor's flags.
    pub fn new(labels: impl Fn(&[&HostDevice]) -> Labels + Send + Sync + 'static) -> Self {
        Self(Arc::new(labels))
    }

    /// Labels of devices that are all of the labeller's vendor.
    pub fn labels(&self, hosts: &[&HostDevice]) -> Labels {
        (self.0)(hosts)
    }
}

impl fmt::Debug for Labeller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Labeller")
    }
}

fn inner(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn legal_value(value: &str) -> bool {
    let ends = |c: char| !c.is_ascii_alphanumeric();
    value.len() <= MAX_LENGTH && value.chars().all(inner) && !value.starts_with(ends) && !value.ends_with(ends)
}

fn legal_key(key: &str) -> bool {
    let domain = |prefix: &str| is_subdomain(prefix) && prefix.split('.').all(is_label);
    let (prefixed, name) = key.split_once('/').map_or((true, key), |(prefix, name)| (domain(prefix), name));
    prefixed && !name.is_empty() && legal_value(name)
}

/// How often each value occurs.
pub fn counted<T: Ord>(values: impl IntoIterator<Item = T>) -> BTreeMap<T, u64> {
    values.into_iter().fold(BTreeMap::new(), |mut counts, value| {
        *counts.entry(value).or_default() += 1;
        counts
    })
}

/// The beginning of a text, as a legal value of at most `most` characters. `blank` chooses the substitute for an
/// illegal character; `None`: it is dropped.
pub fn legal(text: &str, most: usize, blank: impl Fn(char) -> Option<char>) -> String {
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
