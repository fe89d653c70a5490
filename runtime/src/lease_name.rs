//! The name of a Lease as flags have it.

use std::fmt;
use std::str::FromStr;

use anyhow::ensure;
use kerf::ids::syntax::{is_label, is_subdomain};

/// Namespace and name of a Lease: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name in it.
    pub name: String,
}

impl FromStr for LeaseName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (namespace, name) = text.split_once('/').unwrap_or_default();
        ensure!(is_label(namespace) && is_subdomain(name), "{text:?} is not NAMESPACE/NAME of a Lease");
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_named_with_its_namespace() {
        let lease: LeaseName = "kerf-system/kerf-scheduler".parse().unwrap();
        assert_eq!((&*lease.namespace, &*lease.name), ("kerf-system", "kerf-scheduler"));
        assert_eq!(lease.to_string(), "kerf-system/kerf-scheduler");
        for wrong in ["kerf-scheduler", "/a", "/b", "a/", "A/b", "a/b/c", ""] {
            assert!(wrong.parse::<LeaseName>().unwrap_err().to_string().contains("NAMESPACE/NAME"), "{wrong}");
        }
    }
}
