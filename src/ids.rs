//! Names and ids, each with its own type. To clone one is cheap: they share their string.

pub mod syntax;

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(text: T) -> Self {
                Self(text.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name!(
    /// `metadata.uid` of a Pod: never used again for another pod, even one of the same name.
    PodUid
);
name!(
    /// `metadata.name` of a Node.
    NodeName
);
name!(
    /// The id of a physical card: the vendor's UUID. Unique on its node, stable across restarts.
    DeviceId
);
name!(
    /// Full name of an extended resource (`deepomatic.com/shared-gpu`).
    ResourceName
);
name!(
    /// Name of a container, unique in its pod (init containers included).
    ContainerName
);

impl DeviceId {
    const INDEX: &'static str = "index-";

    /// The id for "the card at this index" where no UUID is known: on nodes run by gpu-manager, and in its
    /// `predicate-gpu-idx-*` annotations.
    pub fn of_index(index: u32) -> Self {
        Self(format!("{}{index}", Self::INDEX).into())
    }

    /// The index that [`DeviceId::of_index`] was given. `None` for any other spelling: a card would have several names.
    pub fn as_index(&self) -> Option<u32> {
        let digits = self.0.strip_prefix(Self::INDEX)?;
        let plain = digits == "0" || digits.starts_with(|first: char| matches!(first, '1'..='9'));
        digits.parse().ok().filter(|_| plain)
    }
}

/// Namespace and name of a pod, for people and for API calls. Identity is [`PodUid`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

impl PodRef {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_has_one_spelling() {
        for index in [0, 7, 10, u32::MAX] {
            assert_eq!(DeviceId::of_index(index).as_index(), Some(index));
        }
        for other in ["index-00", "index-+0", "index-01", "index-", "index--0", "index- 0", "index-4294967296", "0"]
        {
            assert_eq!(DeviceId::from(other).as_index(), None, "{other}");
        }
    }
}
