//! Which kinds of objects the API server stores, and how a URL path names one.

use super::failure::Failure;

/// A stored kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Resource {
    CsiStorageCapacities,
    Events,
    Leases,
    Nodes,
    PodDisruptionBudgets,
    Pods,
}

impl Resource {
    pub(crate) const ALL: [Self; 6] = [
        Self::CsiStorageCapacities,
        Self::Events,
        Self::Leases,
        Self::Nodes,
        Self::PodDisruptionBudgets,
        Self::Pods,
    ];

    /// The plural name in URLs, tallies and messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::CsiStorageCapacities => "csistoragecapacities",
            Self::Events => "events",
            Self::Leases => "leases",
            Self::Nodes => "nodes",
            Self::PodDisruptionBudgets => "poddisruptionbudgets",
            Self::Pods => "pods",
        }
    }

    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::CsiStorageCapacities => "CSIStorageCapacity",
            Self::Events => "Event",
            Self::Leases => "Lease",
            Self::Nodes => "Node",
            Self::PodDisruptionBudgets => "PodDisruptionBudget",
            Self::Pods => "Pod",
        }
    }

    pub(crate) fn api_version(self) -> &'static str {
        match self {
            Self::CsiStorageCapacities => "storage.k8s.io/v1",
            Self::Leases => "coordination.k8s.io/v1",
            Self::PodDisruptionBudgets => "policy/v1",
            Self::Events | Self::Nodes | Self::Pods => "v1",
        }
    }

    pub(crate) fn namespaced(self) -> bool {
        self != Self::Nodes
    }

    /// Whether the kind has a `/status` subresource here.
    pub(crate) fn has_status(self) -> bool {
        matches!(self, Self::Nodes | Self::Pods)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.as_str() == name)
    }

    /// Events live in two API groups with one storage.
    fn served_in(self, group_version: &str) -> bool {
        self.api_version() == group_version || self == Self::Events && group_version == "events.k8s.io/v1"
    }
}

/// A part of an object with rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subresource {
    Binding,
    Eviction,
    Status,
}

impl Subresource {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Status => "status",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Binding, Self::Eviction, Self::Status].into_iter().find(|sub| sub.as_str() == name)
    }
}

/// What a URL path points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) resource: Resource,
    pub(crate) api_version: String,
    /// `None` means all namespaces, or a kind without namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<Subresource>,
}

impl Target {
    pub(crate) fn parse(path: &str) -> Result<Self, Failure> {
        let missing = || Failure::new(404, "NotFound", "the server could not find the requested resource");
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (api_version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => return Err(missing()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
            rest => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some((*name).to_owned()), None),
            [plural, name, sub] => {
                (plural, Some((*name).to_owned()), Some(Subresource::parse(sub).ok_or_else(missing)?))
            }
            _ => return Err(missing()),
        };
        let resource =
            Resource::parse(plural).filter(|resource| resource.served_in(&api_version)).ok_or_else(missing)?;
        let allowed = match subresource {
            None => true,
            Some(Subresource::Status) => resource.has_status(),
            Some(Subresource::Binding | Subresource::Eviction) => resource == Resource::Pods,
        };
        let shaped =
            if resource.namespaced() { name.is_none() || namespace.is_some() } else { namespace.is_none() };
        if !allowed || !shaped {
            return Err(missing());
        }
        Ok(Self { resource, api_version, namespace, name, subresource })
    }

    /// The name used in tallies and faults: `pods`, `pods/binding`.
    pub(crate) fn counted_as(&self) -> String {
        match self.subresource {
            None => self.resource.as_str().to_owned(),
            Some(sub) => format!("{}/{}", self.resource.as_str(), sub.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_resources_and_subresources() {
        let target = Target::parse("/api/v1/namespaces/ns/pods/a/binding").expect("valid");
        assert_eq!(target.counted_as(), "pods/binding");
        assert_eq!(target.namespace.as_deref(), Some("ns"));
        assert_eq!(target.name.as_deref(), Some("a"));
        assert!(Target::parse("/api/v1/nodes/n/status").is_ok());
        assert!(Target::parse("/apis/storage.k8s.io/v1/namespaces/ns/csistoragecapacities/c").is_ok());
        assert!(Target::parse("/apis/events.k8s.io/v1/namespaces/ns/events").is_ok());
        assert!(Target::parse("/apis/coordination.k8s.io/v1/namespaces/ns/leases/l").is_ok());
    }

    #[test]
    fn unknown_paths_are_not_found() {
        for path in [
            "/",
            "/api/v1/secrets",
            "/api/v1/leases",
            "/api/v1/nodes/n/binding",
            "/api/v1/pods/without-namespace",
            "/api/v1/namespaces/ns/nodes/n",
        ] {
            assert_eq!(Target::parse(path).expect_err(path).code, 404, "{path}");
        }
    }
}
