//! Versions of Kubernetes, and the oldest that kerf works with.

use std::fmt;
use std::str::FromStr;

/// A release of Kubernetes. What follows the minor number is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

/// The least version. Before it kubelet lists pods that it has rejected or that have ended as if they ran
/// (`KubeletPodResourcesListUseActivePods`), and the plugin finds out by that list whose call it answers.
pub const LEAST: Version = Version { major: 1, minor: 34 };

/// Not the text of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a version of Kubernetes")]
pub struct NoVersion;

impl FromStr for Version {
    type Err = NoVersion;

    /// Reads `gitVersion` or `kubeletVersion`, with what vendors add (`v1.34.2-gke.100`, `v1.36.3+k3s1`), or major and
    /// minor alone (`1.34+`).
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let (major, rest) = text.strip_prefix('v').unwrap_or(text).split_once('.').ok_or(NoVersion)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number = |digits: &str| {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain).ok_or(NoVersion)
        };
        Ok(Self { major: number(major)?, minor: number(rest.get(..end).unwrap_or_default())? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_versions_are_read() {
        for (text, minor) in [
            ("v1.34.0", 34),
            ("v1.34.2-gke.100", 34),
            ("v1.36.3+k3s1", 36),
            ("v1.35.1-eks-abc1234", 35),
            ("v1.34.0-rc.1", 34),
            ("1.34", 34),
            ("1.34+", 34),
            ("v1.100", 100),
        ] {
            assert_eq!(text.parse(), Ok(Version { major: 1, minor }), "{text}");
        }
        for text in
            ["", "v", "1", "v1", "v1.", "v1.x", "one.34", "+1.34", "1.+34", "v.34", "v1.99999999999", "\u{661}.34"]
        {
            assert_eq!(text.parse::<Version>(), Err(NoVersion), "{text}");
        }
    }

    #[test]
    fn versions_are_in_order_of_their_numbers() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        for old in ["v1.33.99", "v1.9.0", "v0.99.0", "v1.33.0-gke.34"] {
            assert!(version(old) < LEAST, "{old}");
        }
        for new in ["v1.34.0-alpha.0", "v1.36.3", "v1.100.0", "v2.0.0"] {
            assert!(version(new) >= LEAST, "{new}");
        }
        assert_eq!(LEAST.to_string(), "1.34");
    }
}
