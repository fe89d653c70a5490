//! The words kerf writes on Pods and Nodes, and how they are read back.
//!
//! Two records of a placement are written together: `<D>/gpu-placement`, the authority, by container name and
//! card id ([`placement`]); and the compatibility record that gpu-admission wrote and gpu-manager reads, by
//! position and card index ([`compat`]). The plugin's inventory of a node is in [`inventory`], and what it did to
//! enforce a pod's shares in [`isolation`].
//!
//! Whatever stands in an annotation may have been written by a tenant: reading is strict, bounded by
//! [`MAX_BYTES`], never panics, and the result is believed only where it serves the pod's own request
//! ([`crate::plan::Plan::serves`]).

pub mod compat;
pub mod inventory;
pub mod isolation;
pub mod placement;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::device::MAX_CARDS;
use crate::ids::NodeName;
use crate::plan::Placement;
use crate::request::GpuRequest;
use crate::shares::{BadPerCard, ShareResources};

/// The longest annotation value that is read: four times the placement of 64 containers on 64 cards.
pub const MAX_BYTES: usize = 256 << 10;

/// The prefix of every resource and annotation: a DNS name, `inspur.com` unless configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Arc<str>);

impl Default for Domain {
    fn default() -> Self {
        Self("inspur.com".into())
    }
}

/// A resource domain that Kubernetes would not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no resource domain: expected a DNS name such as inspur.com, outside kubernetes.io")]
pub struct BadDomain(String);

impl FromStr for Domain {
    type Err = BadDomain;

    fn from_str(text: &str) -> Result<Self, BadDomain> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let reserved = text == "kubernetes.io" || text.ends_with(".kubernetes.io");
        if text.len() > 200 || !text.contains('.') || reserved || !text.split('.').all(label) {
            return Err(BadDomain(text.chars().take(80).collect()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Every key of one domain, spelled out once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The domain all of them start with.
    pub domain: Domain,
    /// Resource: compute, 100 = one card.
    pub core: String,
    /// Resource: card memory in units of 256 MiB.
    pub memory: String,
    /// Pod annotation, set by the user: ceiling for bursts in percent of a card.
    pub core_limit: String,
    /// Pod annotation, set by the user: the policy for this pod.
    pub policy: String,
    /// Pod annotation, set by the user: the least isolation that its shares need.
    pub isolation: String,
    /// Pod annotation, set by the user: where its shares by count must lie.
    pub shares: String,
    /// Pod annotation, written by the plugin: the isolation that its shares got.
    pub isolated: String,
    /// Pod annotation: the placement, the authority.
    pub placement: String,
    /// Pod annotation, compatibility: the node.
    pub predicate_node: String,
    /// Pod annotation, compatibility: when it was decided, in nanoseconds.
    pub predicate_time: String,
    /// Pod annotation, compatibility: followed by the position of the container in `spec.containers`.
    pub predicate_gpu_idx: String,
    /// Pod annotation: `false` at bind, `true` once the node has confirmed.
    pub gpu_assigned: String,
    /// Node annotation, written by the plugin: the cards.
    pub inventory: String,
    /// Node annotation, written by the plugin, followed by what it offers: keys of the labels that it wrote.
    pub labels: String,
    /// Node annotation, set by an administrator: ids or indices of cards that take no new pod.
    pub cordon: String,
    /// Resources that are shares by count; none unless set.
    pub share_resources: ShareResources,
}

impl Keys {
    /// The keys of `domain`.
    pub fn new(domain: Domain) -> Self {
        let key = |name: &str| format!("{domain}/{name}");
        Self {
            core: key("vcuda-core"),
            memory: key("vcuda-memory"),
            core_limit: key("vcuda-core-limit"),
            policy: key("gpu-policy"),
            isolation: key("isolation"),
            isolated: key("gpu-isolation"),
            placement: key("gpu-placement"),
            predicate_node: key("predicate-node"),
            predicate_time: key("predicate-time"),
            predicate_gpu_idx: key("predicate-gpu-idx-"),
            gpu_assigned: key("gpu-assigned"),
            inventory: key("gpu-inventory"),
            labels: key("gpu-labels-"),
            cordon: key("gpu-cordon"),
            shares: key("gpu-shares"),
            share_resources: ShareResources::default(),
            domain,
        }
    }

    /// The same keys, with these resources as shares by count.
    #[must_use]
    pub fn with_shares(self, share_resources: ShareResources) -> Self {
        Self { share_resources, ..self }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new(Domain::default())
    }
}

/// Why an annotation is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Longer than [`MAX_BYTES`].
    #[error("longer than {MAX_BYTES} bytes")]
    TooLong,
    /// No JSON of the expected shape.
    #[error("not the expected JSON: {0}")]
    Malformed(String),
    /// Written by a later kerf.
    #[error("version {0} is unknown")]
    Version(u64),
    /// A compatibility annotation that is missing or is no list of card indices.
    #[error("no card indices for a container")]
    Indices,
    /// A number of shares of a card that cannot be counted.
    #[error(transparent)]
    Shares(BadPerCard),
    /// A value out of its range, or a name twice.
    #[error("{0}")]
    Invalid(&'static str),
    /// An inventory of more cards than kerf manages on one node.
    #[error("more than {MAX_CARDS} GPUs")]
    TooManyCards,
    /// No inventory, though a plugin of kerf's serves the node.
    #[error("missing, though kerf's plugin has served the node")]
    Missing,
    /// Readable, but it is not what the pod asks for.
    #[error("does not serve the pod's request")]
    OtherRequest,
    /// A placement on another node than the pod's.
    #[error("names another node than the pod's")]
    OtherNode,
}

/// What a pod's annotations say of its placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Nothing was recorded.
    Absent,
    /// A placement that serves the request.
    Placed(Placement),
    /// Something is recorded that cannot be believed.
    Unreadable(Unreadable),
}

impl Record {
    /// The same of a pod that is on `node`: a placement elsewhere is not believed. The compatibility record names cards by
    /// index, whatever the node: a pod that was bound elsewhere by hand has them there, as under gpu-manager.
    #[must_use]
    fn on(self, node: &NodeName) -> Self {
        match self {
            Self::Placed(placement) if placement.node != *node && !placement.plan.names_indices_alone() => {
                Self::Unreadable(Unreadable::OtherNode)
            }
            record => record,
        }
    }
}

/// What stands on a pod that is bound to `node` and counts for `request` ([`GpuRequest::of_bound`]).
pub fn read_bound(
    annotations: &BTreeMap<String, String>,
    keys: &Keys,
    request: &GpuRequest,
    node: &NodeName,
) -> Record {
    read(annotations, keys, request).on(node)
}

/// Reads a pod's placement: `gpu-placement` where present, otherwise the compatibility record.
pub fn read(annotations: &BTreeMap<String, String>, keys: &Keys, request: &GpuRequest) -> Record {
    let result = match annotations.get(&keys.placement) {
        Some(text) => placement::decode(text),
        None => match compat::decode(annotations, keys, request) {
            Ok(None) => return Record::Absent,
            Ok(Some(placement)) => Ok(placement),
            Err(error) => Err(error),
        },
    };
    match result {
        Ok(placement) if placement.plan.serves(request) => Record::Placed(placement),
        Ok(_) => Record::Unreadable(Unreadable::OtherRequest),
        Err(error) => Record::Unreadable(error),
    }
}

/// Both records of a placement that was just decided: what the Binding carries.
pub fn write(placement: &Placement, keys: &Keys) -> BTreeMap<String, String> {
    let mut annotations = compat::encode(placement, keys);
    annotations.insert(keys.placement.clone(), placement::encode(placement));
    annotations.insert(keys.gpu_assigned.clone(), "false".into());
    annotations
}

/// Whether the node has confirmed the placement.
pub fn confirmed(annotations: &BTreeMap<String, String>, keys: &Keys) -> bool {
    annotations.get(&keys.gpu_assigned).is_some_and(|value| value == "true")
}

fn bounded(text: &str) -> Result<&str, Unreadable> {
    if text.len() > MAX_BYTES { Err(Unreadable::TooLong) } else { Ok(text) }
}

fn malformed(error: &serde_json::Error) -> Unreadable {
    // serde's message may quote the input; its kind and place say enough
    Unreadable::Malformed(format!("{:?} at column {}", error.classify(), error.column()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_dns_names() {
        for good in ["inspur.com", "tencent.com", "gpu.example-1.org"] {
            assert_eq!(good.parse::<Domain>().unwrap().to_string(), good);
        }
        for bad in ["", "com", "Inspur.com", "a..b", "-a.b", "a.b/", "kubernetes.io", "x.kubernetes.io", "a b.c"] {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
    }
}
