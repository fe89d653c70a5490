//! Shares of a GPU's time, in simulated time: ten seconds pass in moments, and the same way on every machine.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::{fs, thread};

use kerf_limiter_contract::arbiter::{self, Tenant};
use kerf_limiter_contract::{allowance, path};
use kerf_standin_card::card::Card;
use kerf_standin_card::clock::Clock;

use crate::support::{Container, MIB, Way};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1000 * SECOND;

/// The part of the GPU's time that a program got while it wanted all of it, in percent.
fn share(core: u8, way: Way, how: &str, kernel: u64, seconds: u64) -> f64 {
    let clock_dir = tempfile::tempdir().unwrap();
    let clock = clock_dir.path().join("clock");
    Clock::create(&clock, START, 1).unwrap();
    let container = Container::new(1024 * MIB, core, core).with_clock(&clock);
    let lines = container.run(way, &[&format!("spin:{how}:{kernel}:{seconds}000")]);
    let words: Vec<&str> = lines[0].split(' ').collect();
    let ["ran", busy, wall] = words[..] else { panic!("{lines:?}") };
    assert_eq!(container.snapshot().flags.names().count(), 0);
    let (charged, ran) = (container.snapshot().devices[0].busy, busy.parse::<u64>().unwrap());
    let right = ran * 97 / 100..ran * 104 / 100;
    assert!(core == 100 || right.contains(&charged), "{how} of {kernel} ns: charged {charged} of {ran}");
    100.0 * busy.parse::<f64>().unwrap() / wall.parse::<f64>().unwrap()
}

#[track_caller]
fn holds(way: Way, how: &str, kernel: u64) {
    let of = |core: u8| (core, share(core, way, how, kernel, 10));
    // each on a clock of its own, so they can run at the same time
    let shares: Vec<_> = thread::scope(|scope| {
        let threads = [10, 30, 50, 90].map(|core| scope.spawn(move || of(core)));
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    println!("{how} of {kernel} ns: {shares:?}");
    for (core, share) in &shares {
        assert!((share - f64::from(*core)).abs() <= 3.0, "{how} of {kernel} ns: {shares:?}");
    }
}

const SMALL: u64 = 50_000;
const LARGE: u64 = 30_000_000;

#[test]
fn shares_hold_with_small_kernels() {
    holds(Way::GetProcAddress, "kernel", SMALL);
}

#[test]
fn shares_hold_with_large_kernels() {
    holds(Way::Linked, "kernel", LARGE);
}

#[test]
fn shares_hold_with_graphs() {
    holds(Way::GetProcAddress, "graph", SMALL);
}

#[test]
fn shares_hold_with_per_thread_streams_and_the_other_launches() {
    holds(Way::PerThread, "kernel", 500_000);
    holds(Way::Dlsym, "ex", 500_000);
    holds(Way::Dlsym, "cooperative", 500_000);
}

#[test]
fn shares_hold_with_a_program_that_waits_for_each_kernel() {
    holds(Way::Dlsym, "synced", 200_000);
}

#[test]
fn shares_hold_with_several_streams() {
    holds(Way::Dlsym, "streams", 200_000);
}

#[test]
fn very_small_kernels_are_held_as_well() {
    // 10 us: most of them lie between two marks
    let share = share(30, Way::Dlsym, "kernel", 10_000, 4);
    assert!((share - 30.0).abs() <= 3.0, "{share}");
}

#[test]
fn a_whole_card_is_not_paced() {
    let share = share(100, Way::Linked, "kernel", 500_000, 10);
    assert!(share > 99.9, "{share}");
}

/// Two containers on one GPU, and a host that decides every half second.
struct Host {
    clock: Clock,
    card: Card,
    tenants: Vec<(Container, Child, Tenant)>,
    served: Vec<u64>,
    waited: Vec<u64>,
    _files: tempfile::TempDir,
}

impl Host {
    fn new(programs: &[(u8, u8, String)]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (clock, card): (PathBuf, PathBuf) = (files.path().join("clock"), files.path().join("card"));
        Clock::create(&clock, START, programs.len() as u32 + 1).unwrap();
        Card::create(&card, 16 << 30).unwrap();
        let tenants: Vec<_> = programs
            .iter()
            .map(|(core, ceiling, program)| {
                let container = Container::beside(&card, 1024 * MIB, *core, *ceiling).with_clock(&clock);
                let mut command = container.command(Way::GetProcAddress, &[program]);
                let child = command.stdout(Stdio::null()).spawn().unwrap();
                let millionths = |percent: u8| u32::from(percent) * 10_000;
                let (floor, ceiling) = (millionths(*core), millionths(*ceiling));
                (container, child, Tenant { floor, ceiling, allowance: 0, used: 0, waited: false })
            })
            .collect();
        let (clock, card) = (Clock::join(&clock).unwrap(), Card::look(&card).unwrap());
        let n = tenants.len();
        Self { clock, card, tenants, served: vec![0; n], waited: vec![0; n], _files: files }
    }

    /// Nanoseconds of the GPU's time that each container has had.
    fn served(&self) -> Vec<u64> {
        let report = self.card.report(self.clock.now());
        let of = |pid| report.processes.iter().find(|(p, _, _)| *p == pid).map_or(0, |(_, _, served)| *served);
        self.tenants.iter().map(|(_, child, _)| of(child.id())).collect()
    }

    /// Lets seconds pass; returns each container's part of them, in percent.
    fn pass(&mut self, seconds: u64) -> Vec<f64> {
        let before = self.served();
        let period = SECOND / 2;
        for _ in 0..seconds * 2 {
            self.clock.sleep_until(self.clock.now() + period);
            let served = self.served();
            for (i, (container, _, tenant)) in self.tenants.iter_mut().enumerate() {
                tenant.used = ((served[i] - self.served[i]) * 1_000_000 / period) as u32;
                let waited = container.snapshot().devices[0].waited;
                tenant.waited = waited > self.waited[i];
                self.waited[i] = waited;
            }
            self.served = served;
            let all: Vec<Tenant> = self.tenants.iter().map(|(_, _, tenant)| *tenant).collect();
            for ((container, _, tenant), next) in self.tenants.iter_mut().zip(arbiter::decide(&all)) {
                tenant.allowance = next;
                let file = fs::OpenOptions::new().write(true).open(container.file(path::ALLOWANCE)).unwrap();
                let entry = allowance::entry(next, self.clock.now());
                file.write_all_at(&entry.to_ne_bytes(), allowance::offset(0) as u64).unwrap();
            }
        }
        let of = |(now, before): (u64, &u64)| 100.0 * (now - before) as f64 / (seconds * SECOND) as f64;
        self.served().into_iter().zip(&before).map(of).collect()
    }

    fn end(self) {
        self.clock.leave();
        for (_, mut child, _) in self.tenants {
            child.wait().unwrap();
        }
    }
}

#[test]
fn ten_and_ninety_on_one_card_are_one_to_nine() {
    let spin = |how: &str, kernel: u64| format!("spin:{how}:{kernel}:16000");
    for (how, kernel) in [("kernel", 200_000), ("graph", 100_000)] {
        let mut host = Host::new(&[(10, 10, spin(how, kernel)), (90, 90, spin(how, kernel))]);
        host.pass(4);
        let shares = host.pass(10);
        let ratio = shares[1] / shares[0];
        println!("{how}: {shares:?}, 1:{ratio:.2}");
        assert!((8.5..=9.5).contains(&ratio), "{how}: {shares:?}, 1:{ratio:.2}");
        assert!(shares.iter().sum::<f64>() > 97.0, "{shares:?}");
        host.end();
    }
}

/// A kernel is never interrupted, so a neighbour with tiny kernels waits for long ones and needs more turns.
#[test]
fn shares_hold_between_long_kernels_and_tiny_ones() {
    let spin = |kernel: u64| format!("spin:kernel:{kernel}:9000");
    for (cores, kernels) in
        [([10, 90], [10_000_000, 100_000]), ([90, 10], [10_000_000, 50_000]), ([50, 50], [20_000_000, 50_000])]
    {
        let mut host = Host::new(&[(cores[0], cores[0], spin(kernels[0])), (cores[1], cores[1], spin(kernels[1]))]);
        host.pass(3);
        let shares = host.pass(5);
        println!("{cores:?} {kernels:?}: {shares:?}");
        host.end();
        for (share, core) in shares.iter().zip(cores) {
            assert!((share - f64::from(core)).abs() <= 3.0, "{cores:?} {kernels:?}: {shares:?}");
        }
    }
}

#[test]
fn an_idle_neighbours_time_is_used_up_to_the_ceiling_and_given_back() {
    // the neighbour begins after eight seconds
    let mut host =
        Host::new(&[(30, 80, "spin:kernel:200000:20000".into()), (70, 70, "spin:later:200000:20000".into())]);
    host.pass(3);
    let alone = host.pass(4);
    assert!((alone[0] - 80.0).abs() <= 3.0 && alone[1] == 0.0, "{alone:?}");
    host.pass(4);
    let both = host.pass(8);
    println!("alone {alone:?}, both {both:?}");
    assert!((both[0] - 30.0).abs() <= 3.0 && (both[1] - 70.0).abs() <= 3.0, "{both:?}");
    host.end();
}

#[test]
fn without_a_host_that_decides_the_floor_holds() {
    let clock_dir = tempfile::tempdir().unwrap();
    let clock = clock_dir.path().join("clock");
    Clock::create(&clock, START, 1).unwrap();
    let container = Container::new(1024 * MIB, 30, 80).with_clock(&clock);
    // a decision that is a minute old is ignored
    let mut bytes = allowance::blank();
    bytes[8..16].copy_from_slice(&allowance::entry(800_000, START - 60 * SECOND).to_ne_bytes());
    container.write(path::ALLOWANCE, bytes);
    let lines = container.run(Way::Dlsym, &["spin:kernel:200000:10000"]);
    let words: Vec<f64> = lines[0].split(' ').skip(1).map(|w| w.parse().unwrap()).collect();
    let share = 100.0 * words[0] / words[1];
    assert!((share - 30.0).abs() <= 3.0, "{share}");
}
