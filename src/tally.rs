//! How the needs of a pod's containers add up over its life.

use crate::request::ContainerKind;
use crate::units::Share;

/// An amount that can be added up over a pod's life.
pub trait Amount: Copy + Default {
    /// The saturating sum.
    #[must_use]
    fn plus(self, other: Self) -> Self;

    /// The maximum of each part.
    #[must_use]
    fn larger(self, other: Self) -> Self;
}

impl Amount for u32 {
    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }

    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
}

impl Amount for u64 {
    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }

    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
}

impl Amount for Share {
    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }

    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
}

impl<A: Amount, B: Amount> Amount for (A, B) {
    fn plus(self, other: Self) -> Self {
        (self.0.plus(other.0), self.1.plus(other.1))
    }

    fn larger(self, other: Self) -> Self {
        (self.0.larger(other.0), self.1.larger(other.1))
    }
}

/// What a pod takes: the larger of what its long-running containers take together and what each init container takes
/// beside the sidecars started before it, which is how Kubernetes counts resources. Init containers and sidecars are
/// added in kubelet's order; app containers at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally<A> {
    /// Sidecars and app containers together.
    lasting: A,
    sidecars: A,
    /// The largest sum of an init container and the sidecars beside it.
    init: A,
}

impl<A: Amount> Tally<A> {
    #[must_use]
    pub fn with(self, kind: ContainerKind, amount: A) -> Self {
        match kind {
            ContainerKind::Init => Self { init: self.init.larger(self.sidecars.plus(amount)), ..self },
            ContainerKind::Sidecar => {
                Self { lasting: self.lasting.plus(amount), sidecars: self.sidecars.plus(amount), ..self }
            }
            ContainerKind::App => Self { lasting: self.lasting.plus(amount), ..self },
        }
    }

    /// The most that the pod takes at any time.
    pub fn peak(self) -> A {
        self.lasting.larger(self.init)
    }

    /// What the pod's other containers take while a container of this kind runs.
    pub fn beside(self, kind: ContainerKind) -> A {
        if kind == ContainerKind::Init { self.sidecars } else { self.lasting }
    }

    /// The tally with other sidecars beside the init containers that are still to be added.
    #[must_use]
    pub(crate) fn with_sidecars(self, sidecars: A) -> Self {
        Self { sidecars, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_takes_the_larger_of_its_phases() {
        use ContainerKind::{App, Init, Sidecar};
        let of = |containers: &[(ContainerKind, u32)]| {
            containers.iter().fold(Tally::default(), |tally, (kind, amount)| tally.with(*kind, *amount)).peak()
        };
        assert_eq!(of(&[(Init, 5), (Init, 7), (App, 2), (App, 3)]), 7);
        assert_eq!(of(&[(Sidecar, 1), (Init, 5), (App, 2)]), 6, "beside the sidecar before it");
        assert_eq!(of(&[(Init, 5), (Sidecar, 1), (App, 2)]), 5, "and not beside one after it");
        assert_eq!(of(&[(Sidecar, 1), (App, u32::MAX)]), u32::MAX);
    }
}
