//! What a pod asks for, parsed once. A [`GpuRequest`] from [`GpuRequest::parse`] keeps every rule of the contract;
//! [`GpuRequest::of_bound`] says what a bound pod counts as, even where it breaks a rule.

mod bound;
mod error;

pub use error::{
    BrokenRule, MAX_AMOUNT, MAX_ANNOTATIONS, MAX_CARD_MEMORY, MAX_CARDS, MAX_CONTAINERS, MAX_LIMITS, MAX_LISTED,
    MAX_SHARES, MAX_UNKNOWN, RequestError, Rule,
};

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{ContainerName, PodRef, PodUid};
use crate::isolation::Isolation;
use crate::policy::Policy;
use crate::shares::{Arrangement, Counted};
use crate::units::{Mib, Milli, QuantityError, Share, parse_quantity};

crate::words! {
    /// When a container of a pod runs, which decides how its needs add up.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum ContainerKind {
        /// Runs to its end before the next container starts, which may use its cards.
        Init = "init",
        /// A restartable init container: starts in its turn and then runs as long as the pod.
        Sidecar = "sidecar",
        /// Runs beside the other containers of the pod.
        App = "app",
    }
}

/// A container of a pod, with its amounts as text.
#[derive(Clone, Copy, Debug)]
pub struct RawContainer<'a> {
    pub name: &'a str,
    pub kind: ContainerKind,
    /// `resources.limits["<D>/vcuda-core"]`
    pub core: Option<&'a str>,
    /// `resources.limits["<D>/vcuda-memory"]`
    pub memory: Option<&'a str>,
    /// Resources of counted shares ([`crate::shares`]), with their amounts.
    pub counted: &'a [(&'a str, &'a str)],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A part of one card
    Share(Share),
    /// Cards that the container has alone.
    Whole {
        /// At least one.
        count: u32,
        /// The memory that they must have together, if any.
        memory: Option<Mib>,
    },
    Counted(Counted),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRequest {
    pub name: ContainerName,
    pub kind: ContainerKind,
    /// Position in `spec.containers` (or in `spec.initContainers`), counting all containers there.
    pub position: u32,
    pub ask: Ask,
}

/// What a pod asks for; it has at least one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuRequest {
    /// In the order in which kubelet starts them: init containers and sidecars, then the others.
    pub containers: Vec<ContainerRequest>,
    /// Ceiling for bursts, for all shares of the pod: `<D>/vcuda-core-limit`. Absent: the share is the ceiling.
    pub limit: Option<Milli>,
    /// The pod's own choice of policy: `<D>/gpu-policy`. Absent: the extender's.
    pub policy: Option<Policy>,
    /// The weakest isolation that the pod's shares accept: `<D>/isolation`. Absent: any.
    pub isolation: Option<Isolation>,
    /// On which cards its counted shares must be: `<D>/gpu-shares`.
    pub arrangement: Arrangement,
    /// `spec.priority`. A pod may be evicted for one of a higher priority.
    pub priority: i32,
}

/// A pod with its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRequest {
    /// Empty where the pod has no uid; the API server never sends such a pod.
    pub uid: PodUid,
    /// For logs and for API calls.
    pub name: PodRef,
    pub request: Arc<GpuRequest>,
}

impl PodRequest {
    pub fn new(uid: &PodUid, name: &PodRef, request: &Arc<GpuRequest>) -> Self {
        Self { uid: uid.clone(), name: name.clone(), request: request.clone() }
    }
}

/// The annotations that a user sets on a pod, as text.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawAnnotations<'a> {
    /// `<D>/vcuda-core-limit`
    pub limit: Option<&'a str>,
    /// `<D>/gpu-policy`
    pub policy: Option<&'a str>,
    /// `<D>/isolation`
    pub isolation: Option<&'a str>,
    /// `<D>/gpu-shares`
    pub arrangement: Option<&'a str>,
}

impl GpuRequest {
    /// Reads a pod's containers (in kubelet's order) and annotations. `Ok(None)`: the pod asks for no card.
    ///
    /// # Errors
    /// The first [`RequestError`] in the order of the containers.
    pub fn parse<'a>(
        containers: impl IntoIterator<Item = RawContainer<'a>>,
        annotations: RawAnnotations<'_>,
    ) -> Result<Option<Self>, RequestError> {
        let mut parsed = Vec::new();
        for (position, raw) in in_place(containers) {
            let ask = Ask::of(&raw).map_err(|rule| RequestError::Container { container: raw.name.into(), rule })?;
            if let Some(ask) = ask {
                parsed.push(ContainerRequest { name: raw.name.into(), kind: raw.kind, position, ask });
            }
        }
        if parsed.is_empty() {
            return Ok(None);
        }
        if parsed.len() > MAX_CONTAINERS {
            return Err(RequestError::TooManyContainers);
        }
        let RawAnnotations { limit, policy, isolation, arrangement } = annotations;
        let limit = limit.map(|text| parse_limit(text, &parsed)).transpose()?;
        let policy = policy.map(str::parse).transpose().map_err(|_| RequestError::UnknownPolicy)?;
        let isolation = isolation.map(|text| parse_isolation(text, &parsed)).transpose()?;
        let arrangement = arrangement.map(|text| parse_arrangement(text, &parsed)).transpose()?.unwrap_or_default();
        Ok(Some(Self { containers: parsed, limit, policy, isolation, arrangement, priority: 0 }))
    }

    /// The pod's own policy, otherwise `default`.
    pub fn policy_or(&self, default: Policy) -> Policy {
        self.policy.unwrap_or(default)
    }

    /// The container with the share with the most memory, for which a card may be too small.
    pub fn largest_share(&self) -> Option<&ContainerRequest> {
        let memory = |container: &&ContainerRequest| match container.ask {
            Ask::Share(share) => Some(share.memory),
            Ask::Whole { .. } | Ask::Counted(_) => None,
        };
        // ties go to the first
        self.containers.iter().rev().filter(|c| memory(c).is_some()).max_by_key(memory)
    }

    /// Whether it asks for counted shares only.
    pub fn only_counted(&self) -> bool {
        self.counted().count() == self.containers.len()
    }

    /// The counted shares that it asks for, by container.
    pub fn counted(&self) -> impl Iterator<Item = (&ContainerRequest, &Counted)> {
        counted(&self.containers)
    }
}

fn counted(containers: &[ContainerRequest]) -> impl Iterator<Item = (&ContainerRequest, &Counted)> {
    containers.iter().filter_map(|container| match &container.ask {
        Ask::Counted(counted) => Some((container, counted)),
        Ask::Share(_) | Ask::Whole { .. } => None,
    })
}

/// The containers of a pod, each with its position in its own list.
fn in_place<'a>(
    containers: impl IntoIterator<Item = RawContainer<'a>>,
) -> impl Iterator<Item = (u32, RawContainer<'a>)> {
    let (mut inits, mut apps) = (0.., 0..);
    containers.into_iter().map_while(move |raw| {
        let positions = if raw.kind == ContainerKind::App { &mut apps } else { &mut inits };
        Some((positions.next()?, raw))
    })
}

fn parse_amount(text: &str) -> Result<u64, QuantityError> {
    parse_quantity(text)
        .and_then(|amount| if amount > MAX_AMOUNT { Err(QuantityError::TooLarge) } else { Ok(amount) })
}

fn parse_limit(text: &str, containers: &[ContainerRequest]) -> Result<Milli, RequestError> {
    let percent: u32 = text.trim().parse().map_err(|_| RequestError::LimitNotANumber)?;
    let limit = Milli::from_core_units(percent.into()).ok_or(RequestError::LimitNotANumber)?;
    let shares = containers.iter().filter_map(|c| match c.ask {
        Ask::Share(share) => Some((&c.name, share.compute)),
        Ask::Whole { .. } | Ask::Counted(_) => None,
    });
    let mut shares = shares.peekable();
    shares.peek().ok_or(RequestError::LimitWithoutShare)?;
    match shares.find(|(_, compute)| limit < *compute || limit > Milli::WHOLE) {
        Some((container, _)) => Err(RequestError::LimitOutOfRange { container: container.clone() }),
        None => Ok(limit),
    }
}

fn parse_isolation(text: &str, containers: &[ContainerRequest]) -> Result<Isolation, RequestError> {
    let level = text.trim().parse().map_err(|_| RequestError::UnknownIsolation)?;
    let first = |is: fn(&Ask) -> bool| containers.iter().find(|c| is(&c.ask)).map(|c| c.name.clone());
    match (first(|ask| matches!(ask, Ask::Counted(_))), first(|ask| matches!(ask, Ask::Share(_)))) {
        (Some(container), _) if level > Isolation::None => Err(RequestError::IsolationOfCounted { container }),
        (_, Some(container)) if level == Isolation::Mig => Err(RequestError::PartitionOfShare { container }),
        _ => Ok(level),
    }
}

fn parse_arrangement(text: &str, containers: &[ContainerRequest]) -> Result<Arrangement, RequestError> {
    let arrangement = text.trim().parse().map_err(|_| RequestError::UnknownArrangement)?;
    let mut resources = counted(containers).map(|(_, counted)| &counted.resource);
    let first = resources.next().ok_or(RequestError::ArrangementWithoutShares)?;
    if arrangement == Arrangement::SameCard && resources.any(|other| other != first) {
        return Err(RequestError::SameCardOfTwoResources);
    }
    Ok(arrangement)
}

impl Ask {
    /// Reads what a container asks for. `Ok(None)`: it asks for no card.
    ///
    /// # Errors
    /// The [`Rule`] that the container breaks.
    pub fn of(raw: &RawContainer<'_>) -> Result<Option<Self>, Rule> {
        let own = Self::parse(raw.core, raw.memory)?;
        let mut asks: Vec<Self> = own.into_iter().collect();
        for (resource, amount) in raw.counted {
            match parse_quantity(amount).map_err(Rule::Count)? {
                0 => {}
                count if count > MAX_SHARES => return Err(Rule::TooManyShares),
                count => {
                    let count = u32::try_from(count).map_err(|_| Rule::TooManyShares)?;
                    asks.push(Self::Counted(Counted { resource: (*resource).into(), count }));
                }
            }
        }
        if asks.len() > 1 { Err(Rule::TwoResources) } else { Ok(asks.pop()) }
    }

    /// Reads one container's amounts of core and memory. `Ok(None)`: it names neither.
    ///
    /// # Errors
    /// The [`Rule`] that the container breaks.
    pub fn parse(core: Option<&str>, memory: Option<&str>) -> Result<Option<Self>, Rule> {
        let core = core.map_or(Ok(0), parse_amount).map_err(Rule::Core)?;
        let memory = memory.map_or(Ok(0), parse_amount).map_err(Rule::Memory)?;
        let mib = Mib::from_memory_units(memory).ok_or(Rule::Memory(QuantityError::TooLarge))?;
        match core {
            0 if memory == 0 => Ok(None),
            0 => Err(Rule::MemoryWithoutCore),
            1..=99 if memory == 0 => Err(Rule::ShareWithoutMemory),
            1..=99 if memory > MAX_CARD_MEMORY => Err(Rule::MemoryInOtherUnits),
            1..=99 => {
                let compute = Milli::from_core_units(core).ok_or(Rule::Core(QuantityError::TooLarge))?;
                Ok(Some(Self::Share(Share { compute, memory: mib })))
            }
            _ if core % 100 != 0 => Err(Rule::PartOfSeveralCards),
            _ if core / 100 > MAX_CARDS => Err(Rule::TooManyCards),
            _ if memory > core / 100 * MAX_CARD_MEMORY => Err(Rule::MemoryInOtherUnits),
            _ => {
                let count = u32::try_from(core / 100).map_err(|_| Rule::TooManyCards)?;
                Ok(Some(Self::Whole { count, memory: (memory > 0).then_some(mib) }))
            }
        }
    }

    /// Units of `<D>/vcuda-core` that the container asks kubelet for.
    pub fn core_units(&self) -> u64 {
        match self {
            Self::Share(share) => share.compute.to_core_units().into(),
            Self::Whole { count, .. } => u64::from(*count) * 100,
            Self::Counted(_) => 0,
        }
    }

    /// Units of `<D>/vcuda-memory` that the container asks kubelet for; 0 where it asks for none.
    pub fn memory_units(&self) -> u64 {
        match self {
            Self::Share(share) => share.memory.to_memory_units(),
            Self::Whole { memory, .. } => memory.map_or(0, Mib::to_memory_units),
            Self::Counted(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app<'a>(name: &'a str, core: Option<&'a str>, memory: Option<&'a str>) -> RawContainer<'a> {
        RawContainer { name, kind: ContainerKind::App, core, memory, counted: &[] }
    }

    fn parse(core: Option<&str>, memory: Option<&str>, limit: Option<&str>) -> Result<Option<GpuRequest>, String> {
        let annotations = RawAnnotations { limit, ..RawAnnotations::default() };
        GpuRequest::parse([app("main", core, memory)], annotations).map_err(|e| e.to_string())
    }

    #[test]
    fn legal_amounts_become_asks() {
        let share = parse(Some("50"), Some("30"), Some("50")).unwrap().unwrap();
        assert_eq!(share.containers[0].ask, Ask::Share(Share::new(500, 7680)));
        assert_eq!(share.limit, Some(Milli(500)));
        let cards = parse(Some("200"), Some("60"), None).unwrap().unwrap();
        assert_eq!(cards.containers[0].ask, Ask::Whole { count: 2, memory: Some(Mib(15360)) });
        assert_eq!(parse(None, None, None), Ok(None));
        assert_eq!(parse(Some("0"), Some("0"), Some("nonsense")), Ok(None));
    }

    #[test]
    fn each_broken_rule_is_named_with_its_container() {
        let rule = |core: &str, memory: Option<&str>| parse(Some(core), memory, None).unwrap_err();
        assert_eq!(rule("150", Some("1")), r#"container "main": vcuda-core must be 1..99 or a multiple of 100"#);
        assert_eq!(rule("50", None), r#"container "main": a share (vcuda-core below 100) needs vcuda-memory"#);
        assert_eq!(rule("0", Some("1")), r#"container "main": vcuda-memory needs vcuda-core"#);
        assert_eq!(rule("-50", Some("1")), r#"container "main": vcuda-core must not be negative"#);
        assert_eq!(rule("50500m", Some("1")), r#"container "main": vcuda-core must be a whole number"#);
        assert_eq!(rule("50", Some("0.5")), r#"container "main": vcuda-memory must be a whole number"#);
        assert_eq!(rule("1e9", None), r#"container "main": asks for more GPUs than any node has"#);
    }

    #[test]
    fn limit_must_parse_and_cover_every_share() {
        let limit = |text: &str| parse(Some("50"), Some("1"), Some(text)).map(|r| r.unwrap().limit);
        assert_eq!(limit("100"), Ok(Some(Milli::WHOLE)));
        for (text, word) in [("x", "whole number"), ("-1", "whole number"), ("49", "at least"), ("101", "at most")]
        {
            assert!(limit(text).unwrap_err().contains(word), "{text}");
        }
        assert!(parse(Some("100"), None, Some("50")).unwrap_err().contains("for shares"));
    }

    #[test]
    fn positions_count_every_container_of_their_list() {
        let request = GpuRequest::parse(
            [
                RawContainer { kind: ContainerKind::Init, ..app("i", Some("100"), None) },
                app("none", None, None),
                app("main", Some("10"), Some("1")),
            ],
            RawAnnotations { policy: Some("spread"), ..RawAnnotations::default() },
        );
        let request = request.unwrap().unwrap();
        assert_eq!(request.containers.iter().map(|c| c.position).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(request.policy, Some(Policy::Spread));
    }
    #[test]
    fn isolation_is_a_known_level_and_no_partition_for_shares() {
        let of = |core: &str, level: &str| {
            let annotations = RawAnnotations { isolation: Some(level), ..RawAnnotations::default() };
            let request = GpuRequest::parse([app("main", Some(core), Some("1"))], annotations);
            request.map(|request| request.unwrap().isolation.unwrap())
        };
        assert_eq!(of("50", " limiter"), Ok(Isolation::Limiter));
        assert_eq!(of("100", "mig"), Ok(Isolation::Mig));
        assert_eq!(of("50", "strong"), Err(RequestError::UnknownIsolation));
        assert_eq!(of("50", "mig"), Err(RequestError::PartitionOfShare { container: "main".into() }));
    }

    #[test]
    fn shares_by_count_are_one_resource_of_a_container() {
        let of = |counted: &[(&str, &str)], arrangement| {
            let raw = |name| RawContainer { name, kind: ContainerKind::App, core: None, memory: None, counted };
            let annotations = RawAnnotations { arrangement, ..RawAnnotations::default() };
            GpuRequest::parse([raw("main")], annotations).map_err(|error| error.to_string())
        };
        let two = of(&[("a.b/x", "0"), ("a.b/y", "2")], Some("same-card")).unwrap().unwrap();
        assert_eq!(two.containers[0].ask, Ask::Counted(Counted { resource: "a.b/y".into(), count: 2 }));
        assert_eq!(two.arrangement, Arrangement::SameCard);
        assert_eq!(of(&[("a.b/x", "0")], Some("nonsense")), Ok(None));
        for (amount, text) in [
            ("-1", "number of GPU shares must not be negative"),
            ("1.5", "number of GPU shares must be a whole number"),
            ("2M", "asks for more GPU shares than any node has"),
        ] {
            assert_eq!(of(&[("a.b/x", amount)], None), Err(format!("container \"main\": {text}")));
        }
        let two = of(&[("a.b/x", "1"), ("a.b/y", "1")], None).unwrap_err();
        assert!(two.contains("asks for GPUs by two resources"), "{two}");
        let x = RawContainer { counted: &[("a.b/x", "1")], ..app("x", None, None) };
        let y = RawContainer { name: "y", counted: &[("a.b/y", "1")], ..x };
        for (arrangement, refused) in [("same-card", true), ("different-cards", false)] {
            let annotations = RawAnnotations { arrangement: Some(arrangement), ..RawAnnotations::default() };
            let found = GpuRequest::parse([x, y], annotations);
            assert_eq!(found == Err(RequestError::SameCardOfTwoResources), refused, "{found:?}");
        }
    }
}
