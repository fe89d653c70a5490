//! What a pod counts as once it is bound: its amounts, even where its request is invalid.
//!
//! The rules of the contract decide where a pod may go. A bound pod holds what it was given by an earlier version of
//! kerf, by gpu-manager or by hand, so nothing is refused here: amounts that break a rule count as the most that they
//! can mean.

use super::{
    Ask, ContainerKind, ContainerRequest, GpuRequest, RawAnnotations, RawContainer, in_place, parse_arrangement,
    parse_isolation, parse_limit,
};
use crate::shares::Counted;
use crate::units::{Mib, Milli, Share, parse_quantity};

impl Ask {
    /// Every card of the node, whole: what a container may have whose amounts cannot be read.
    pub const EVERY_CARD: Self = Self::Whole { count: u32::MAX, memory: None };

    /// The most that a container of a bound pod may have been given.
    ///
    /// * A part of a card without memory counts with its compute, and memory without core with its memory.
    /// * Core above one card that is not a number of cards counts as the next larger number. gpu-admission reserves the
    ///   next smaller one for it.
    /// * Amounts of several resources all count.
    /// * An amount that cannot be read counts as all of its resource.
    fn at_most(raw: &RawContainer<'_>) -> impl Iterator<Item = Self> {
        let core = raw.core.map_or(Ok(0), parse_quantity).ok();
        let memory = raw.memory.map_or(Ok(0), parse_quantity).ok().and_then(Mib::from_memory_units);
        let own = match (core, memory) {
            (Some(0), Some(Mib(0))) => None,
            (Some(core @ 0..=99), Some(memory)) => {
                let compute = Milli::from_core_units(core).unwrap_or(Milli::WHOLE);
                Some(Self::Share(Share { compute, memory }))
            }
            (Some(core), Some(memory)) => Some(Self::Whole {
                count: u32::try_from(core.div_ceil(100)).unwrap_or(u32::MAX),
                memory: (memory > Mib(0)).then_some(memory),
            }),
            (None, _) | (_, None) => Some(Self::EVERY_CARD),
        };
        let counted = raw.counted.iter().filter_map(|(resource, amount)| {
            let count = parse_quantity(amount).map_or(u32::MAX, |count| u32::try_from(count).unwrap_or(u32::MAX));
            (count > 0).then(|| Self::Counted(Counted { resource: (*resource).into(), count }))
        });
        own.into_iter().chain(counted)
    }
}

impl GpuRequest {
    /// What a bound pod counts as; `None` where it has no amount of any GPU resource. Equal to the result of
    /// [`GpuRequest::parse`] where that succeeds. Annotations never change what is counted: an invalid one is ignored.
    pub fn of_bound<'a>(
        containers: impl IntoIterator<Item = RawContainer<'a>>,
        annotations: RawAnnotations<'_>,
    ) -> Option<Self> {
        let mut asking = Vec::new();
        for (position, raw) in in_place(containers) {
            let container = |ask| ContainerRequest { name: raw.name.into(), kind: raw.kind, position, ask };
            asking.extend(Ask::at_most(&raw).map(container));
        }
        let RawAnnotations { limit, policy, isolation, arrangement } = annotations;
        (!asking.is_empty()).then(|| Self {
            limit: limit.and_then(|text| parse_limit(text, &asking).ok()),
            policy: policy.and_then(|text| text.parse().ok()),
            isolation: isolation.and_then(|text| parse_isolation(text, &asking).ok()),
            arrangement: arrangement.and_then(|text| parse_arrangement(text, &asking).ok()).unwrap_or_default(),
            priority: 0,
            containers: asking,
        })
    }

    /// For a bound pod of which nothing can be read: every card of its node.
    pub fn unreadable() -> Self {
        let ask = Ask::EVERY_CARD;
        let container = ContainerRequest { name: "".into(), kind: ContainerKind::App, position: 0, ask };
        Self { containers: vec![container], ..Self::default() }
    }

    /// Whether one of its amounts cannot be read, so that it counts as all of its resource.
    pub fn is_unreadable(&self) -> bool {
        self.containers.iter().any(|container| match &container.ask {
            Ask::Counted(counted) => counted.count == u32::MAX,
            ask => *ask == Ask::EVERY_CARD,
        })
    }

    /// Whether both count as the same: equal amounts in equal containers, and equal priority.
    pub fn counts_as(&self, other: &Self) -> bool {
        self.containers == other.containers && self.priority == other.priority
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(core: Option<&str>, memory: Option<&str>, counted: &[(&str, &str)]) -> Vec<Ask> {
        let raw = RawContainer { name: "main", kind: ContainerKind::App, core, memory, counted };
        let request = GpuRequest::of_bound([raw], RawAnnotations::default());
        request.map(|request| request.containers.into_iter().map(|c| c.ask).collect()).unwrap_or_default()
    }

    #[test]
    fn amounts_that_gpu_manager_accepted_count() {
        let share = |compute, memory| vec![Ask::Share(Share::new(compute, memory))];
        let whole = |count, memory| vec![Ask::Whole { count, memory }];
        for (core, memory, counts) in [
            ("50", Some("30"), share(500, 7680)),
            ("50", None, share(500, 0)),
            ("0", Some("30"), share(0, 7680)),
            ("100", Some("1"), whole(1, Some(Mib(256)))),
            ("150", None, whole(2, None)),
            ("250", Some("0"), whole(3, None)),
            ("1e9", None, whole(10_000_000, None)),
            ("0", Some("0"), vec![]),
        ] {
            assert_eq!(of(Some(core), memory, &[]), counts, "{core} {memory:?}");
        }
        assert_eq!(of(None, Some("4"), &[]), share(0, 1024));
    }

    #[test]
    fn what_cannot_be_read_counts_as_all_there_is() {
        for bad in ["-1", "0.5", "500m", "x", "", "99999999999999999999", "1e30"] {
            assert_eq!(of(Some(bad), Some("1"), &[]), [Ask::EVERY_CARD], "core {bad}");
            assert_eq!(of(Some("50"), Some(bad), &[]), [Ask::EVERY_CARD], "memory {bad}");
            let counted = of(None, None, &[("a.b/c", bad)]);
            assert_eq!(counted, [Ask::Counted(Counted { resource: "a.b/c".into(), count: u32::MAX })], "{bad}");
        }
        // a number of units that overflows as MiB
        assert_eq!(of(Some("50"), Some("18446744073709551615"), &[]), [Ask::EVERY_CARD]);
    }

    #[test]
    fn amounts_of_two_resources_count_both() {
        let both = of(Some("50"), Some("1"), &[("a.b/c", "2"), ("a.b/d", "0"), ("a.b/e", "1")]);
        let counted = |name: &str, count| Ask::Counted(Counted { resource: name.into(), count });
        assert_eq!(both, [Ask::Share(Share::new(500, 256)), counted("a.b/c", 2), counted("a.b/e", 1)]);
    }

    #[test]
    fn of_the_annotations_those_stay_that_can_be_read() {
        let raw = RawContainer {
            name: "main",
            kind: ContainerKind::App,
            core: Some("50"),
            memory: Some("1"),
            counted: &[],
        };
        let annotations = RawAnnotations {
            limit: Some("80"),
            policy: Some("Binpack "),
            isolation: Some("mig"),
            arrangement: Some("same-card"),
        };
        let request = GpuRequest::of_bound([raw], annotations).unwrap();
        assert_eq!((request.limit, request.policy, request.isolation), (Some(Milli(800)), None, None));
        let plain = GpuRequest::of_bound([raw], RawAnnotations::default()).unwrap();
        assert!(request.counts_as(&plain) && request != plain);
    }
}
