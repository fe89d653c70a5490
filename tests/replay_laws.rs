//! Laws that hold for every workload under every policy.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use kerf::placement::market::{Host, Market};
use kerf::placement::shape::{Cards, Shape};
use kerf::policy::Policy;
use kerf::replay::{Arrivals, CardKind, Machine, Pod, Run, Stay, Step, Workload, write_log};
use kerf::units::{Mib, Milli, Share};
use proptest::collection::vec;
use proptest::prelude::*;

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(Policy::ALL.to_vec())
}

/// Machines with cards of two models and two sizes.
fn machines() -> impl Strategy<Value = Vec<Machine>> {
    let machine =
        (0..=4usize, prop::sample::select(vec![("a", 16_000u64), ("b", 16_000), ("b", 32_000)]), 8..64u64);
    vec(machine, 1..12).prop_map(|machines| {
        let machine = |(number, (cards, (model, memory), cores)): (usize, (usize, (&str, u64), u64))| Machine {
            name: format!("m{number:02}").into(),
            cpu: cores * 1000,
            memory: Mib(cores * 4096),
            cards: vec![CardKind { model: model.into(), memory: Mib(memory) }; cards],
        };
        machines.into_iter().enumerate().map(machine).collect()
    })
}

fn shape() -> impl Strategy<Value = Shape> {
    let share = (1..100u32, 1..=20u64).prop_map(|(core, parts)| Cards::Share(Share::new(core * 10, parts * 800)));
    let cards = prop_oneof![1 => Just(Cards::None), 5 => share, 2 => (1..=4u32).prop_map(Cards::Whole)];
    let models = prop::sample::select(vec![vec![], vec![], vec![], vec!["a"], vec!["b"]]);
    (cards, models, 0..16u64).prop_map(|(cards, models, cores)| Shape {
        cpu: cores * 500,
        memory: Mib(cores * 512),
        models: if cards == Cards::None { Vec::new() } else { models.into_iter().map(Into::into).collect() },
        cards,
    })
}

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    // few shapes, so that pods of one shape come again
    (vec(shape(), 1..8), vec((any::<prop::sample::Index>(), 0..200u64, 1..100u64), 1..120)).prop_map(
        |(shapes, pods)| {
            let pod = |(number, (shape, from, stays)): (usize, (prop::sample::Index, u64, u64))| Pod {
                name: format!("p{number:03}").into(),
                shape: shape.get(&shapes).clone(),
                stay: Some(Stay { from, until: Some(from + stays) }),
            };
            pods.into_iter().enumerate().map(pod).collect()
        },
    )
}

fn workload(timed: bool) -> impl Strategy<Value = Workload> {
    (machines(), pods()).prop_map(move |(machines, pods)| Workload {
        machines,
        arrivals: if timed { Arrivals::by_time(pods) } else { Arrivals::in_order(pods) },
    })
}

/// What is free of a machine, counted again by the card's rule and not by the market's.
struct Books {
    cpu: u64,
    memory: u64,
    cards: Vec<Share>,
}

impl Books {
    fn of(machine: &Machine) -> Self {
        let cards = machine.cards.iter().map(|card| Share { compute: Milli::WHOLE, memory: card.memory });
        Self { cpu: machine.cpu, memory: machine.memory.0, cards: cards.collect() }
    }

    fn fits(&self, machine: &Machine, shape: &Shape) -> bool {
        let model = |at: &usize| shape.models.is_empty() || shape.models.contains(&machine.cards[*at].model);
        let cards = (0..self.cards.len()).filter(model);
        let whole =
            |at: &usize| self.cards[*at] == Share { compute: Milli::WHOLE, memory: machine.cards[*at].memory };
        self.cpu >= shape.cpu
            && self.memory >= shape.memory.0
            && match shape.cards {
                Cards::None => true,
                Cards::Share(share) => cards.map(|at| self.cards[at]).any(|free| share.fits_in(free)),
                Cards::Whole(count) => cards.filter(whole).count() >= count as usize,
            }
    }

    fn take(&mut self, shape: &Shape, slots: &[usize]) {
        self.cpu -= shape.cpu;
        self.memory -= shape.memory.0;
        for at in slots {
            let free = self.cards[*at];
            let part = match shape.cards {
                Cards::Share(share) => share,
                _ => Share { compute: Milli::WHOLE, memory: free.memory },
            };
            assert!(part.fits_in(free), "card {at} is overcommitted");
            self.cards[*at] = free.saturating_sub(part);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_overcommitted_and_no_pod_that_fits_is_refused(workload in workload(false), policy in policy()) {
        let mut books: Vec<Books> = workload.machines.iter().map(Books::of).collect();
        for placed in Run::new(&workload, policy, None, 0.0).finish().placed {
            let shape = &workload.arrivals.pods[placed.pod].shape;
            match placed.choice {
                Some(choice) => {
                    let machine = &workload.machines[choice.host];
                    prop_assert!(books[choice.host].fits(machine, shape));
                    let count = match shape.cards { Cards::None => 0, Cards::Share(_) => 1, Cards::Whole(n) => n as usize };
                    prop_assert_eq!(choice.slots.len(), count);
                    books[choice.host].take(shape, &choice.slots);
                }
                None => {
                    let fits = books.iter().zip(&workload.machines).any(|(books, machine)| books.fits(machine, shape));
                    prop_assert!(!fits, "{:?} fits", shape);
                }
            }
        }
    }

    #[test]
    fn equal_input_gives_equal_output(workload in workload(true), policy in policy()) {
        let log = || write_log(&workload, &Run::new(&workload, policy, None, 0.0).finish());
        let other = workload.clone();
        let on_a_thread = std::thread::spawn(move || write_log(&other, &Run::new(&other, policy, None, 0.0).finish()));
        prop_assert_eq!(log(), on_a_thread.join().unwrap());
    }

    #[test]
    fn memory_in_proportion_changes_no_placement(workload in workload(true), policy in policy()) {
        let with = |memory: &dyn Fn(u32) -> u64| {
            let mut workload = workload.clone();
            let cards = workload.machines.iter_mut().flat_map(|machine| &mut machine.cards);
            cards.for_each(|card| card.memory = Mib(memory(1000)));
            for pod in &mut workload.arrivals.pods {
                if let Cards::Share(share) = &mut pod.shape.cards {
                    share.memory = Mib(memory(share.compute.0));
                }
            }
            write_log(&workload, &Run::new(&workload, policy, None, 0.0).finish())
        };
        prop_assert_eq!(with(&|_| 0), with(&|compute| u64::from(compute) * 16));
    }

    /// Cached state of earlier decisions never changes a choice: the chosen machine is the best when each is rated
    /// alone and without a cache.
    #[test]
    fn the_choice_is_the_best_rated_machine(workload in any::<bool>().prop_flat_map(workload), policy in policy()) {
        let mut market = Market::default();
        for machine in &workload.machines {
            machine.join(&mut market, 50);
        }
        let mut places = BTreeMap::new();
        for step in &workload.arrivals.steps {
            let (Step::Comes(number) | Step::Leaves(number)) = *step;
            let class = market.class(&workload.arrivals.pods[number].shape);
            if let Step::Leaves(_) = step {
                places.remove(&number).into_iter().for_each(|choice| market.give(class, &choice));
                continue;
            }
            market.arrived(class);
            let choice = market.choose(policy, class);
            let hosts: Vec<Host> = (0..).map_while(|number| market.host(number).cloned()).collect();
            let rated = hosts.iter().enumerate().filter_map(|(number, host)| {
                let (rank, slots) = market.rate(policy, class, host)?;
                Some((rank, number, slots))
            });
            let best = rated.min().map(|(_, number, slots)| (number, slots));
            prop_assert_eq!(choice.as_ref().map(|choice| (choice.host, choice.slots.clone())), best);
            if let Some(choice) = choice {
                market.take(class, &choice);
                places.insert(number, choice);
            }
        }
    }

    #[test]
    fn what_has_left_leaves_no_trace(workload in workload(false), policy in policy()) {
        let machines = workload.machines.clone();
        let mut pods = workload.arrivals.pods.clone();
        let lasting = pods.len();
        pods.iter_mut().for_each(|pod| pod.stay = Some(Stay { from: 0, until: Some(1) }));
        // all pods leave; then one pod finds an empty cluster
        let probe = Pod { name: "probe".into(), stay: Some(Stay { from: 5, until: None }), ..pods[0].clone() };
        pods.push(probe);
        let workload = Workload { machines: machines.clone(), arrivals: Arrivals::by_time(pods) };
        let outcome = Run::new(&workload, policy, Some(&[]), 0.0).finish();
        let alone = Workload { machines, arrivals: Arrivals::in_order(vec![workload.arrivals.pods[lasting].clone()]) };
        let alone = Run::new(&alone, policy, Some(&[]), 0.0).finish();
        prop_assert_eq!(&outcome.placed.last().unwrap().choice, &alone.placed[0].choice);
    }
}
