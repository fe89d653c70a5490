//! Which measurements are breaches. Pure.

use std::collections::{BTreeMap, VecDeque};

use kerf::units::Mib;

use crate::state::breach::{BreachKind, Breaches, Observation, Subject};

/// So many measurements in a row make a breach: processes and memory of a single measurement may be of different
/// moments.
const STREAK: u32 = 2;
/// The driver's own memory is allowed for so many processes at most: a container with many may hide an allocation among
/// them.
const PROCESSES: u64 = 4;
/// Compute is judged by the mean of so many measurements: the limiter lets long kernels run and is paid afterwards.
const WINDOW: usize = 60;
/// In percent of the GPU: the driver counts in whole percent and samples.
const TOLERANCE: u32 = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    pub kind: BreachKind,
    pub observation: Observation,
}

impl Breach {
    /// For the pod's owner.
    pub fn message(&self) -> String {
        let Observation { subject, share, used, unlimited, hidden, fault, ceiling, .. } = &self.observation;
        let (container, gpu) = (&subject.container, &subject.device);
        match self.kind {
            BreachKind::Memory => format!(
                "container {container:?} uses {} MiB of GPU {gpu}; its share is {} MiB",
                used >> 20,
                share.unwrap_or_default() >> 20
            ),
            BreachKind::Unlimited => format!(
                "{unlimited} of the processes of container {container:?} on GPU {gpu} run without kerf's limiter: is the \
                 program static, or not built for glibc?"
            ),
            BreachKind::Mounts => {
                let places: Vec<&str> = hidden.iter().copied().collect();
                format!(
                    "processes of container {container:?} on GPU {gpu} do not find kerf's files at {}: is a volume \
                     mounted there, or a link in the image?",
                    places.join(", ")
                )
            }
            BreachKind::File => {
                let fault = fault.as_deref().unwrap_or_default();
                format!("kerf's files in container {container:?} are interfered with: {fault}")
            }
            BreachKind::Foreign => format!("container {container:?} uses GPU {gpu}, which it was not given"),
            BreachKind::Compute => format!(
                "container {container:?} has used more of the time of GPU {gpu} for a while than it may; its share is \
                 {} %",
                ceiling.unwrap_or_default()
            ),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Watchdog {
    margin: u64,
    streaks: BTreeMap<(Subject, BreachKind), u32>,
    /// The last measurements of each container's compute, in percent.
    busy: BTreeMap<Subject, VecDeque<u32>>,
}

impl Watchdog {
    /// `margin`: memory that a process may use beyond the container's share, since the driver takes it for itself.
    pub fn new(margin: Mib) -> Self {
        Self { margin: margin.bytes(), ..Self::default() }
    }

    /// Takes a measurement. Returns the breaches that begin with it, and all that go on.
    pub fn look(&mut self, observations: &[Observation]) -> (Vec<Breach>, Breaches) {
        self.remember(observations);
        let mut streaks = BTreeMap::new();
        let (mut begun, mut all) = (Vec::new(), Breaches::new());
        for observation in observations {
            for kind in BreachKind::ALL.into_iter().filter(|kind| self.breaks(observation, *kind)) {
                let key = (observation.subject.clone(), kind);
                let streak = self.streaks.get(&key).copied().unwrap_or(0).saturating_add(1);
                // a file is right again as soon as it was cut
                let enough = if kind == BreachKind::File { 1 } else { STREAK };
                if streak == enough {
                    begun.push(Breach { kind, observation: observation.clone() });
                }
                if streak >= enough {
                    all.insert(key.clone(), observation.clone());
                }
                streaks.insert(key, streak);
            }
        }
        self.streaks = streaks;
        (begun, all)
    }

    /// Who is not measured uses nothing: a program that ends and starts again has the same past.
    fn remember(&mut self, observations: &[Observation]) {
        let mut now: BTreeMap<&Subject, u32> = observations
            .iter()
            .filter(|observation| observation.ceiling.is_some())
            .map(|observation| (&observation.subject, observation.utilization))
            .collect();
        for (subject, busy) in &mut self.busy {
            busy.push_back(now.remove(subject).unwrap_or(0));
            if busy.len() > WINDOW {
                busy.pop_front();
            }
        }
        self.busy.extend(now.into_iter().map(|(subject, percent)| (subject.clone(), VecDeque::from([percent]))));
        self.busy.retain(|_, busy| busy.iter().any(|percent| *percent > 0));
    }

    fn breaks(&self, observation: &Observation, kind: BreachKind) -> bool {
        let Observation { subject, share, used, processes, unlimited, hidden, fault, ceiling, .. } = observation;
        match (kind, share) {
            (BreachKind::Foreign, share) => share.is_none(),
            (_, None) => false,
            (BreachKind::Memory, Some(share)) => {
                let own = processes.iter().map(|held| self.margin.min(*held)).fold(0, u64::saturating_add);
                let allowed = own.min(self.margin.saturating_mul(PROCESSES)).saturating_add(*share);
                *used > allowed
            }
            (BreachKind::Unlimited, Some(_)) => *unlimited > 0,
            (BreachKind::Mounts, Some(_)) => !hidden.is_empty(),
            (BreachKind::File, Some(_)) => fault.is_some(),
            (BreachKind::Compute, Some(_)) => ceiling.is_some_and(|ceiling| {
                let busy = self.busy.get(subject).into_iter().flatten();
                let sum = busy.fold(0_u64, |sum, percent| sum.saturating_add((*percent).into()));
                sum > u64::from(ceiling.saturating_add(TOLERANCE)).saturating_mul(WINDOW as u64)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use kerf::ids::PodRef;

    use super::*;

    fn subject() -> Subject {
        Subject {
            uid: "u".into(),
            pod: PodRef::new("ns", "p"),
            container: "main".into(),
            device: "GPU-0".into(),
            index: 0,
        }
    }

    /// A share of 100 MiB, and processes that use so many MiB.
    fn observation(processes: &[u64], unlimited: usize) -> Observation {
        let processes: Vec<u64> = processes.iter().map(|mib| mib << 20).collect();
        let used = processes.iter().sum();
        Observation { share: Some(100 << 20), used, processes, unlimited, ..Observation::new(subject()) }
    }

    fn kinds(breaches: &[Breach]) -> Vec<&'static str> {
        breaches.iter().map(|breach| breach.kind.as_str()).collect()
    }

    #[test]
    fn a_breach_is_two_measurements_in_a_row_and_begins_once() {
        let mut watchdog = Watchdog::new(Mib(10));
        let mut look = |used: u64| watchdog.look(&[observation(&[used - 10, 10], 0)]);
        assert_eq!(look(121), (vec![], Breaches::new()));
        assert_eq!(look(120), (vec![], Breaches::new()));
        look(121);
        let (begun, all) = look(130);
        assert_eq!((begun.len(), all.len()), (1, 1));
        assert_eq!(begun[0].message(), r#"container "main" uses 130 MiB of GPU GPU-0; its share is 100 MiB"#);
        let (begun, all) = look(140);
        assert_eq!((begun.len(), all.len()), (0, 1));
        look(10);
        look(121);
        assert_eq!(look(121).0.len(), 1);
    }

    #[test]
    fn a_process_without_the_limiter_is_another_breach() {
        let mut watchdog = Watchdog::new(Mib(0));
        watchdog.look(&[observation(&[101], 1)]);
        let (begun, _) = watchdog.look(&[observation(&[101], 1)]);
        assert_eq!(kinds(&begun), ["memory", "unlimited"]);
        // a container that has no process on the GPU any more is not observed at all
        assert_eq!(watchdog.look(&[]), (vec![], Breaches::new()));
    }

    /// Processes that hold little do not make room for one that holds much.
    #[test]
    fn the_margin_is_what_processes_hold_and_no_more_than_for_some() {
        let breaks = |processes: &[u64]| {
            let mut watchdog = Watchdog::new(Mib(10));
            watchdog.look(&[observation(processes, 0)]);
            !watchdog.look(&[observation(processes, 0)]).0.is_empty()
        };
        assert!(!breaks(&[110]) && breaks(&[111]));
        assert!(!breaks(&[110, 1, 1, 1]), "each has what it holds");
        assert!(breaks(&[111, 1, 1, 1]));
        assert!(!breaks(&[110, 10, 10, 10]) && breaks(&[110, 10, 10, 10, 1]), "for four processes");
    }

    #[test]
    fn compute_is_judged_by_its_mean() {
        let mut watchdog = Watchdog::new(Mib(0));
        let mut look = |utilization, times: usize| {
            let one = Observation { ceiling: Some(30), utilization, ..observation(&[1], 0) };
            (0..times).flat_map(|_| kinds(&watchdog.look(std::slice::from_ref(&one)).0)).collect::<Vec<_>>()
        };
        assert_eq!(look(40, 200), [""; 0], "within the tolerance");
        assert_eq!(look(100, 1), [""; 0], "the first above is not enough");
        assert_eq!(look(100, 1), ["compute"]);
        assert_eq!(look(0, 60), [""; 0]);
        // with pauses
        assert_eq!(look(100, 24), [""; 0]);
        assert_eq!(look(0, 30), [""; 0]);
        assert_eq!(look(100, 2), ["compute"]);
    }

    #[test]
    fn who_begins_again_has_the_same_past_and_who_is_not_limited_has_none() {
        let mut watchdog = Watchdog::new(Mib(0));
        let one = Observation { ceiling: Some(30), utilization: 100, ..observation(&[1], 0) };
        for _ in 0..24 {
            assert!(watchdog.look(std::slice::from_ref(&one)).0.is_empty());
            watchdog.look(&[]);
        }
        assert!(watchdog.look(std::slice::from_ref(&one)).0.is_empty());
        assert!(!watchdog.busy.is_empty());
        for _ in 0..WINDOW {
            watchdog.look(&[]);
        }
        assert!(watchdog.busy.is_empty());
        for _ in 0..200 {
            assert!(watchdog.look(&[Observation { ceiling: None, ..one.clone() }]).0.is_empty());
        }
    }

    #[test]
    fn what_needs_no_second_look_and_what_is_not_given() {
        let mut watchdog = Watchdog::new(Mib(0));
        let fault = Observation { fault: Some("x".to_owned()), ..observation(&[], 0) };
        assert_eq!(kinds(&watchdog.look(&[fault]).0), ["file"]);
        let foreign = Observation { used: 1 << 40, ..Observation::new(subject()) };
        watchdog.look(std::slice::from_ref(&foreign));
        assert_eq!(kinds(&watchdog.look(&[foreign]).0), ["foreign"]);
    }
}
