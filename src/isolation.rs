//! What keeps the pods of one card apart, from nothing to hardware.

crate::words! {
    /// How a share of a card is enforced, from weakest to strongest. Whole cards need no enforcement.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Isolation or UnknownIsolation {
        /// Not enforced: a container may use all of the card.
        #[default]
        None = "none",
        /// kerf's library in the container, which programs can be built to evade.
        Limiter = "limiter",
        /// NVIDIA's multi-process service.
        Mps = "mps",
        /// The driver's own memory limit on the container's control group.
        Driver = "driver",
        /// A hardware partition (NVIDIA's MIG), which a container has to itself.
        Mig = "mig",
    }
}

/// Not the name of an [`Isolation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown isolation: expected none, limiter, mps, driver or mig")]
pub struct UnknownIsolation;

impl Isolation {
    /// The level that a card needs so that a container whose spec says `user` gets this one: the MPS daemon of a node
    /// runs as root and serves no other user.
    #[must_use]
    pub fn needed_by(self, user: Option<u32>) -> Self {
        match self {
            Self::Mps if !mps_serves(ROOT, user) => Self::Driver,
            level => level,
        }
    }
}

const ROOT: u32 = 0;

/// Whether an MPS daemon that runs as user `daemon` serves a container whose spec says `user`. A daemon has one server
/// at a time, for one user: clients of another user wait silently until all clients of that server are gone. A
/// container that says no user is taken for the daemon's user, since most images are.
pub fn mps_serves(daemon: u32, user: Option<u32>) -> bool {
    user.is_none_or(|user| user == daemon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_root_needs_more_than_mps_to_have_mps() {
        for (level, needed) in [(Isolation::Mps, Isolation::Driver), (Isolation::Limiter, Isolation::Limiter)] {
            assert_eq!(level.needed_by(Some(1000)), needed);
            assert_eq!((level.needed_by(None), level.needed_by(Some(0))), (level, level));
        }
        assert!(mps_serves(1000, Some(1000)) && !mps_serves(1000, Some(0)));
    }

    #[test]
    fn levels_are_named_once_and_ordered_by_strength() {
        assert!(Isolation::ALL.is_sorted_by(|weaker, stronger| weaker < stronger));
        for level in Isolation::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
        }
        for bad in ["", "MIG", "hard", "limiter "] {
            assert_eq!(bad.parse::<Isolation>(), Err(UnknownIsolation), "{bad}");
        }
    }
}
