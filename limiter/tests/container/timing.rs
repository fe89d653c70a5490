//! Launches as a real card times them: events that are reached some microseconds after they were recorded, launches that
//! cost the program time, captures that other calls disturb.

use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::{fs, thread};

use kerf_limiter_contract::{allowance, path};
use kerf_standin_card::clock::Clock;

use crate::corners;
use crate::support::{Built, Container, MIB, Way, lines};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const START: u64 = 1000 * SECOND;

/// A container in simulated time.
fn container(core: u8) -> (Container, tempfile::TempDir) {
    let files = tempfile::tempdir().unwrap();
    let clock = files.path().join("clock");
    Clock::create(&clock, START, 1).unwrap();
    (Container::new(1024 * MIB, core, core).with_clock(&clock), files)
}

/// The numbers in the line that begins with a word.
fn numbers(lines: &[String], word: &str) -> Vec<u64> {
    let line = lines.iter().find_map(|l| l.strip_prefix(word)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("no {word} in {lines:?}"));
    line.split(|c: char| !c.is_ascii_digit()).filter(|w| !w.is_empty()).map(|w| w.parse().unwrap()).collect()
}

#[track_caller]
fn unflagged(container: &Container) {
    assert_eq!(container.snapshot().flags.names().collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn idle_time_is_not_charged_however_a_program_waits() {
    let one = |how: &str, kernel: u64, launches: u64, idle: u64| {
        let (container, _files) = container(50);
        let lines = container.run(Way::Dlsym, &[&format!("bursts:{how}:{kernel}:{launches}:{idle}")]);
        let longest = numbers(&lines, "longest")[0];
        // twice what the kernels take, what launching and waiting cost, and some of the burst before
        let fair = launches * (kernel * 2 + 10_000) * 3 / 2 + MS;
        assert!(longest < fair, "{how}, {launches} of {kernel} ns, idle for {idle} ms: {longest} ns");
        unflagged(&container);
    };
    thread::scope(|scope| {
        for how in ["copy", "callback", "query", "event", "stream"] {
            scope.spawn(move || {
                for (kernel, launches) in [(2_000, 5), (10_000, 20), (15_000, 3), (10_000, 300), (100_000, 7)] {
                    for idle in [1, 300, 60_000] {
                        one(how, kernel, launches, idle);
                    }
                }
            });
        }
    });
}

#[test]
fn what_lies_idle_between_launches_is_not_charged_either() {
    // 33 us of the program's own between launches of 3 us: less than a tenth of the card
    let (container, _files) = container(30);
    let lines = container.command(Way::Linked, &["launches:3000:2000"]).env("STANDIN_LAUNCH_NS", "33000").output();
    let launched = numbers(&self::lines(&lines.unwrap()), "launched")[0];
    assert!(launched < 2000 * 36_000, "{launched}");
    let busy = container.snapshot().devices[0].busy;
    assert!((2000 * 2_000..2000 * 7_000).contains(&busy), "{busy}");
}

#[test]
fn launches_cost_little_more_than_without_the_limiter() {
    // as fast as a program can launch: the processor is the limit
    for (kernel, launch) in [(1_000, 4_000), (3_000, 4_000), (5_000, 10_000), (15_000, 20_000)] {
        let mut took = Vec::new();
        for core in [100, 90] {
            let (container, _files) = container(core);
            let mut command = container.command(Way::Dlsym, &[&format!("launches:{kernel}:20000")]);
            let output = command.env("STANDIN_LAUNCH_NS", launch.to_string()).output().unwrap();
            took.push(numbers(&lines(&output), "launched")[0]);
        }
        let more = 100.0 * took[1] as f64 / took[0] as f64 - 100.0;
        println!("launches of {launch} ns with kernels of {kernel} ns: {more:.1} % more");
        assert!(more < 12.0, "{launch} and {kernel}: {more:.1} % more");
    }
}

#[test]
fn a_bounded_time_is_in_flight() {
    for (kernel, launches, least, most) in
        [(8_000, 4000, 0, 10 * MS), (50_000, 1000, MS / 2, 10 * MS), (2 * MS, 50, 2 * MS, 10 * MS)]
    {
        let (container, _files) = container(99);
        let lines = container.run(Way::Dlsym, &[&format!("launches:{kernel}:{launches}")]);
        let after = numbers(&lines, "launched")[1];
        assert!((least..most).contains(&after), "{kernel}: {after} ns in flight");
    }
}

/// A kernel may wait for one that the program launches later.
#[test]
fn a_launch_is_not_held_back_without_end_by_kernels_that_do_not_end() {
    let (container, _files) = container(50);
    let lines = container.run(Way::Dlsym, &["launches:100000000000:4"]);
    let launched = numbers(&lines, "launched")[0];
    assert!(launched < 5 * SECOND, "{launched}");
}

#[test]
fn debt_is_bounded() {
    let (container, _files) = container(1);
    let began = ["kernel:4000000000", "wait:stream", "launches:1000:1"];
    let launched = numbers(&container.run(Way::Dlsym, &began), "launched")[0];
    assert!((9 * SECOND..11 * SECOND).contains(&launched), "{launched}");
}

#[test]
fn a_program_in_debt_goes_on_when_it_may_use_the_whole_card() {
    let files = tempfile::tempdir().unwrap();
    let clock = files.path().join("clock");
    Clock::create(&clock, START, 2).unwrap();
    let container = Container::new(1024 * MIB, 10, 100).with_clock(&clock);
    let mut command = container.command(Way::Dlsym, &["kernel:900000000", "wait:stream", "launches:1000:1"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let host = Clock::join(&clock).unwrap();
    host.sleep_until(START + 2 * SECOND);
    let file = fs::OpenOptions::new().write(true).open(container.file(path::ALLOWANCE)).unwrap();
    let entry = allowance::entry(allowance::WHOLE, host.now());
    file.write_all_at(&entry.to_ne_bytes(), allowance::offset(0) as u64).unwrap();
    host.leave();
    let output = child.wait_with_output().unwrap();
    let launched = numbers(&lines(&output), "launched")[0];
    assert!((SECOND..SECOND * 3 / 2).contains(&launched), "{launched}");
}

#[test]
fn the_code_that_a_first_launch_loads_is_not_charged() {
    let (container, _files) = container(10);
    let programs = ["kernel:10000", "wait:stream", "launches:10000:5", "function:spin_another", "launches:10000:5"];
    let mut command = container.command(Way::Dlsym, &programs);
    let lines = lines(&command.env("STANDIN_LOAD_NS", "2000000000").output().unwrap());
    let busy = container.snapshot().devices[0].busy;
    assert!(busy < 2 * MS, "{busy}: {lines:?}");
    assert!(numbers(&lines, "launched")[0] < 50 * MS, "{lines:?}");
}

#[test]
fn captures_are_not_disturbed_by_launches_that_are_held_back() {
    for way in [Way::GetProcAddress, Way::PerThread] {
        for mode in 0..3 {
            for begin in ["new", "graph", "again"] {
                let (container, _files) = container(10);
                // in debt for almost two seconds, so that the launch beside the capture waits
                let debt = ["kernel:200000000", "wait:stream"];
                let capture = format!("capturing:{mode}:{begin}:0");
                let commands = [&debt[..], &[&capture, "launches:10000:50"]].concat();
                let lines = container.run(way, &commands);
                assert!(lines.iter().any(|l| l == "captured 0, other 0, end 0"), "{way:?}: {lines:?}");
                assert!(lines.iter().all(|l| !l.starts_with("launches") || l.ends_with(" 0")), "{lines:?}");
                unflagged(&container);
            }
        }
    }
}

/// In the machine's own time: simulated time is for programs of one thread.
#[test]
fn captures_are_not_disturbed_by_other_threads() {
    for begin in ["new", "again"] {
        let container = Container::new(1024 * MIB, 10, 10);
        let commands = ["kernel:40000000", "wait:stream", &format!("capturing:0:{begin}:1")];
        let lines = container.run(Way::Dlsym, &commands);
        assert!(lines.iter().any(|l| l == "captured 0, other 0, end 0"), "{lines:?}");
        unflagged(&container);
    }
}

#[test]
fn shares_hold_after_a_capture_that_was_begun_by_a_function_that_is_not_known() {
    let (container, _files) = container(30);
    let lines = container.run(Way::Dlsym, &["capturing:2:again:0", "spin:kernel:200000:4000"]);
    let ran = numbers(&lines, "ran");
    let share = 100.0 * ran[0] as f64 / ran[1] as f64;
    assert!((share - 30.0).abs() <= 3.0, "{share}");
}

#[test]
fn streams_of_other_contexts_are_held_as_well() {
    for how in ["green", "other"] {
        let (container, _files) = container(30);
        let ran = numbers(&container.run(Way::Dlsym, &[&format!("spin:{how}:200000:4000")]), "ran");
        let share = 100.0 * ran[0] as f64 / ran[1] as f64;
        assert!((share - 30.0).abs() <= 3.0, "{how}: {share}");
        unflagged(&container);
    }
}

#[test]
fn streams_that_were_destroyed_are_not_used() {
    for (launches, capturing) in [(1, 0), (1, 1), (5, 0), (5, 1), (100, 1)] {
        let (container, _files) = container(50);
        let dead = format!("dead:{launches}:{capturing}");
        let lines = container.run(Way::Linked, &["kernel:1000", "wait:stream", &dead, "launches:1000:50"]);
        assert!(lines.iter().all(|l| !l.starts_with("stand-in")), "{dead}: {lines:?}");
        assert!(lines.contains(&format!("{dead} 0")), "{lines:?}");
        unflagged(&container);
    }
}

#[test]
fn a_thread_that_is_ended_while_it_is_held_back_ends_alone() {
    let container = Container::new(1024 * MIB, 2, 2);
    let lines = container.run(Way::Linked, &["cancel:10", "alloc:512"]);
    assert_eq!(lines, ["cancel:10 0", "alloc:512 0"]);
    unflagged(&container);
}

#[test]
fn a_stream_that_cannot_be_measured_is_told_to_the_host() {
    let (container, _files) = container(10);
    // the program has all events that there are
    let lines = container.run(Way::Dlsym, &["events:100000", "launches:10000:300"]);
    assert!(numbers(&lines, "made")[0] > 100, "{lines:?}");
    assert_eq!(lines.last().unwrap(), "launches:10000:300 0");
    assert_eq!(container.snapshot().flags.names().collect::<Vec<_>>(), ["unmeasured"]);
}

#[test]
fn a_card_that_fails_is_not_asked_without_end() {
    let (container, _files) = container(50);
    let lines = container.run(Way::Dlsym, &["function:fault", "launches:1000:3", "launches:1000:100"]);
    // the driver's own error, each time
    assert_eq!(lines[1..], ["launches:1000:3 700", "launches:1000:100 700"]);
}

/// Each wait looks at its own stream; to look at all of them each time would take longer the more there are.
#[test]
fn many_streams_do_not_make_each_wait_long() {
    let took = |limited: bool| {
        let clock_dir = tempfile::tempdir().unwrap();
        let clock = clock_dir.path().join("clock");
        Clock::create(&clock, START, 1).unwrap();
        let container = Container::new(256 * MIB, 90, 90).with_clock(&clock);
        let mut command = container.program(&corners::compile(&container, &[]), &["streams"]);
        if !limited {
            command.env("LD_PRELOAD", &Built::get().container);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().strip_prefix("took ").unwrap().parse::<u64>().unwrap()
    };
    let (alone, limited) = (took(false), took(true));
    assert!(limited < 3 * alone, "{limited} ns, without the limiter {alone} ns");
}
