//! The keys of annotations and the names of resources, which all begin with one domain.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::ids::syntax::is_label;
use crate::shares::ShareResources;

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
#[error("{0:?} is not a valid resource domain: expected a DNS name such as inspur.com, outside kubernetes.io")]
pub struct BadDomain(String);

impl FromStr for Domain {
    type Err = BadDomain;

    fn from_str(text: &str) -> Result<Self, BadDomain> {
        let reserved = text == "kubernetes.io" || text.ends_with(".kubernetes.io");
        if text.len() > 200 || !text.contains('.') || reserved || !text.split('.').all(is_label) {
            return Err(BadDomain(text.chars().take(80).collect()));
        }
        Ok(Self(text.into()))
    }
}

impl Domain {
    pub fn as_str(&self) -> &str {
        &self.0
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
    pub domain: Domain,
    /// Resource: compute, 100 = one card.
    pub core: String,
    /// Resource: card memory in units of 256 MiB.
    pub memory: String,
    /// Pod annotation, set by the user: ceiling for bursts in percent of a card.
    pub core_limit: String,
    /// Pod annotation, set by the user: the policy for this pod.
    pub policy: String,
    /// Pod annotation, set by the user: the weakest isolation that its shares accept.
    pub isolation: String,
    /// Pod annotation, set by the user: on which cards its counted shares must be.
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
    /// Taint of a Node, which kubelet registers and the plugin removes: its GPUs cannot be used yet.
    pub starting: String,
    /// Resources that are counted shares; none unless set.
    pub share_resources: ShareResources,
}

impl Keys {
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
            starting: key("gpu-starting"),
            shares: key("gpu-shares"),
            share_resources: ShareResources::default(),
            domain,
        }
    }

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
