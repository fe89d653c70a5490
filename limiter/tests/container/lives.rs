//! Who is alive: restarts, other PID namespaces, and many short processes.

use std::fs;
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Stdio};
use std::thread;

use kerf_limiter_contract::path;
use kerf_limiter_contract::state::{self, Flags, MAX_PROCESSES, Process, State, owner};

use crate::support::{Built, Container, MIB, Way, lines};

const CAP: u64 = 256 * MIB;
const ALL: &str = "alloc:268435456";

/// A program in a PID namespace of its own, as one life of a container has it. `None` where the machine does not allow
/// that.
fn life(container: &Container, commands: &[&str]) -> Option<Command> {
    let root = fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    let arguments: &[&str] = if root { &[] } else { &["-r"] };
    let namespaces = ["--kill-child", "--mount-proc", "-pf"];
    let allowed =
        Command::new("unshare").args(arguments).args(namespaces).arg("true").stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        println!("NOT RUN: PID namespaces are not allowed here");
        return None;
    }
    let mut command = Command::new("unshare");
    for (name, value) in container.command(Way::Dlsym, &[]).get_envs() {
        command.env(name, value.unwrap());
    }
    command.args(arguments).args(namespaces).arg(Built::get().program(Way::Dlsym)).args(commands);
    Some(command)
}

/// Without a new state: the kernel tells whether the first life is over, though the second cannot see its PID namespace.
#[test]
fn a_second_life_in_another_pid_namespace_gets_all_of_the_share() {
    let container = Container::new(CAP, 100, 100);
    let Some(first) = life(&container, &[ALL, "hold"]) else { return };
    let first = container.hold_command(first);
    assert_eq!(first.lines, [format!("{ALL} 0")]);
    // while it lives, nobody gets anything, in its namespace or in another
    assert_eq!(lines(&life(&container, &["alloc:1"]).unwrap().output().unwrap()), ["alloc:1 2"]);
    assert_eq!(container.run(Way::Linked, &["alloc:1"]), ["alloc:1 2"]);
    first.kill();
    // takes the id of the first life's namespace, so that the second life has another, as on a busy machine
    let between = container.hold_command(life(&container, &["hold"]).unwrap());
    assert_eq!(lines(&life(&container, &[ALL]).unwrap().output().unwrap()), [format!("{ALL} 0")]);
    between.kill();
    assert_eq!(container.run(Way::Linked, &[ALL]), [format!("{ALL} 0")]);
    assert_eq!(container.snapshot().flags, Flags::default());
}

#[test]
fn a_start_of_the_container_begins_with_nothing() {
    let container = Container::new(CAP, 100, 100);
    // of a life that is dying slowly: it has the old file
    let held = container.hold(Way::Linked, &[ALL]);
    container.starts();
    assert_eq!(container.snapshot().processes, []);
    assert_eq!(container.run(Way::Linked, &[ALL]), [format!("{ALL} 0")]);
    held.kill();
}

#[test]
fn eleven_hundred_short_processes_and_then_a_long_one() {
    let container = Container::new(CAP, 100, 100);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..275 {
                    let output = container.command(Way::Dlsym, &["nvml"]).output().unwrap();
                    assert_eq!(lines(&output), [format!("nvml 0 of {CAP}, 0 of {CAP}")]);
                }
            });
        }
    });
    // who only asks takes no entry
    assert_eq!(container.snapshot().processes, []);
    assert_eq!(container.run(Way::Linked, &[ALL]), [format!("{ALL} 0")]);
    assert_eq!(container.snapshot().flags, Flags::default());
}

/// Entries of processes that ended and held nothing, such as those of 1,024 programs that only asked whether there is a
/// GPU.
#[test]
fn entries_of_processes_that_ended_are_free_again() {
    let container = Container::new(CAP, 100, 100);
    let file = fs::OpenOptions::new().write(true).open(container.file(path::STATE)).unwrap();
    let namespace = fs::metadata("/proc/self/ns/pid").unwrap().ino();
    for slot in 0..MAX_PROCESSES {
        let at = (offset_of!(State, processes) + slot * size_of::<Process>()) as u64;
        // no process has this start time
        file.write_all_at(&owner(1 + slot as u32, 1).to_ne_bytes(), at).unwrap();
        file.write_all_at(&namespace.to_ne_bytes(), at + offset_of!(Process, namespace) as u64).unwrap();
    }
    file.write_all_at(&(MAX_PROCESSES as u32).to_ne_bytes(), offset_of!(state::Header, high) as u64).unwrap();
    assert_eq!(container.run(Way::Linked, &[ALL]), [format!("{ALL} 0")]);
    assert_eq!(container.snapshot().flags, Flags::default());
}

/// Closing any descriptor of the state ends the locks of the process; it is alive all the same, and its children change
/// nothing.
#[test]
fn a_process_that_has_lost_its_lock_keeps_what_it_holds() {
    let container = Container::new(CAP, 100, 100);
    let held = container.hold(Way::Linked, &[ALL, "fork", "touch", "hold", "free", ALL, "hold"]);
    assert_eq!(container.run(Way::Linked, &["alloc:1"]), ["alloc:1 2"]);
    assert_eq!(container.snapshot().processes.len(), 2, "the one that asks in vain has an entry");
    let mut held = held;
    assert_eq!(held.next(), ["hold 0", "free 0", &format!("{ALL} 0")]);
    assert_eq!(container.run(Way::Linked, &["alloc:1"]), ["alloc:1 2"]);
    held.kill();
    assert_eq!(container.run(Way::Linked, &[ALL]), [format!("{ALL} 0")]);
    assert_eq!(container.snapshot().flags, Flags::default());
}

/// Another PID namespace has nothing but the lock to tell who is alive.
#[test]
fn a_process_that_has_lost_its_lock_counts_in_other_namespaces_from_its_next_allocation() {
    let container = Container::new(CAP, 100, 100);
    let half = "alloc:134217728";
    let Some(elsewhere) = life(&container, &[ALL]) else { return };
    let mut held = container.hold(Way::Linked, &[half, "touch", "hold", "alloc:1", "hold"]);
    assert_eq!(lines(&{ elsewhere }.output().unwrap()), [format!("{ALL} 0")]);
    assert_eq!(held.next(), ["hold 0", "alloc:1 0"]);
    let refused = life(&container, &[ALL, half, "alloc:132120576"]).unwrap().output().unwrap();
    assert_eq!(lines(&refused), [&*format!("{ALL} 2"), &format!("{half} 2"), "alloc:132120576 0"]);
    held.kill();
}
