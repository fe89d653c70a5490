//! Several processes of one container: they share one account, and memory that one leaves behind is given back.

use std::thread;

use kerf_limiter_contract::state::Flags;

use crate::support::{Container, MIB, Way};

const CAP: u64 = 256 * MIB;
const ALL: &str = "alloc:268435456";

/// The pieces that a program prints it got.
fn got(lines: &[String]) -> u64 {
    lines.iter().filter_map(|l| l.strip_prefix("got ")).map(|n| n.parse::<u64>().unwrap()).sum()
}

#[test]
fn eight_racing_processes_never_exceed_the_cap_and_together_use_all_of_it() {
    let container = Container::new(CAP, 100, 100);
    let held: Vec<_> = thread::scope(|scope| {
        let start = || container.hold(Way::Dlsym, &["greedy:2097152:40"]);
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let report = container.report();
    assert!(report.peak <= CAP, "{} bytes more than the cap", report.peak - CAP);
    // the last one to end its race found all that the others had left
    assert_eq!(held.iter().map(|h| got(&h.lines)).sum::<u64>(), CAP / MIB / 2);
    assert_eq!((report.used, container.snapshot().held(0)), (CAP, CAP));
    assert_eq!(container.snapshot().processes.len(), 8);
    assert_eq!(container.snapshot().flags, Flags::default());
}

#[test]
fn eight_racing_threads_as_well() {
    let container = Container::new(CAP, 100, 100);
    let lines = container.run(Way::GetProcAddress, &["threads"]);
    assert_eq!(got(&lines), CAP / MIB / 2);
    assert_eq!(container.report().peak, CAP);
}

#[test]
fn a_process_that_is_killed_gives_back_what_it_held() {
    let container = Container::new(CAP, 100, 100);
    let held = container.hold(Way::Linked, &[ALL]);
    assert_eq!(container.run(Way::Linked, &["alloc:1"]), ["alloc:1 2"]);
    let pid = held.child.id();
    assert_eq!(container.snapshot().processes[0].pid, pid);
    held.kill();
    assert_eq!(container.run(Way::Linked, &[ALL]), [format!("{ALL} 0")]);
}

#[test]
fn so_does_one_that_its_parent_has_not_waited_for() {
    let container = Container::new(CAP, 100, 100);
    let mut held = container.hold(Way::Linked, &[ALL]);
    held.child.kill().unwrap();
    // a zombie from here on, or about to become one: until then its memory is its own
    let stat = format!("/proc/{}/stat", held.child.id());
    while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
        thread::yield_now();
    }
    assert_eq!(container.run(Way::Linked, &[ALL]), [format!("{ALL} 0")]);
}

#[test]
fn processes_killed_in_the_middle_of_allocating_leave_nothing_behind() {
    let container = Container::new(CAP, 100, 100);
    for round in 0..20 {
        let mut child = container.command(Way::Dlsym, &["greedy:1048576:1000000"]);
        let mut child = child.stdout(std::process::Stdio::null()).spawn().unwrap();
        // partway through it, at a different point each time
        while container.report().peak < CAP / 40 * (1 + round) {
            thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(container.run(Way::Dlsym, &[ALL]), [format!("{ALL} 0")]);
    assert!(container.report().peak <= CAP);
}

#[test]
fn a_process_that_becomes_another_program_gives_back_what_it_held() {
    let container = Container::new(CAP, 100, 100);
    let lines = container.run(Way::Linked, &[ALL, "alloc:1", "exec", ALL, "alloc:1"]);
    assert_eq!(lines, [&format!("{ALL} 0"), "alloc:1 2", &format!("{ALL} 0"), "alloc:1 2"]);
    // also where the other program does not use GPUs
    let other = container.hold(Way::Linked, &[ALL, "become"]);
    assert_eq!(container.run(Way::Linked, &[ALL]), [format!("{ALL} 0")]);
    other.kill();
}

#[test]
fn children_of_a_process_that_has_not_used_its_card_are_processes_of_their_own() {
    let container = Container::new(CAP, 100, 100);
    for way in [Way::Linked, Way::GetProcAddress] {
        let lines = container.run(way, &["forks:4", "greedy:1048576:10"]);
        assert_eq!(lines.iter().filter(|l| l.starts_with("got ")).count(), 4, "{lines:?}");
    }
    assert!(container.report().peak <= CAP);
}

#[test]
fn a_child_of_a_process_that_has_used_its_card_changes_nothing_of_it() {
    let container = Container::new(CAP, 100, 100);
    // 3 is the driver's own status: a child cannot use a driver that its parent has initialised
    let lines = container.run(Way::Linked, &["alloc:134217728", "fork", "alloc:134217728", "alloc:1", "free"]);
    assert_eq!(lines, ["alloc:134217728 0", "child 3", "fork 0", "alloc:134217728 0", "alloc:1 2", "free 0"]);
    assert_eq!(container.snapshot().flags, Flags::default());
}
