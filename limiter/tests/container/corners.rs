//! Programs that do what few do (`corners.c`): each runs as without the limiter, and is held.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kerf_limiter_contract::path;
use kerf_limiter_contract::state::Flags;

use crate::support::{Built, Container, MIB, Way, lines};

const CAP: u64 = 256 * MIB;

pub fn compile(container: &Container, flags: &[&str]) -> PathBuf {
    compile_as(container, "corners", flags)
}

fn compile_as(container: &Container, name: &str, flags: &[&str]) -> PathBuf {
    let file = container.root.path().join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/corners.c");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-pthread", "-o"]).arg(&file).arg(source).args(flags);
    cc.arg("-L").arg(&Built::get().libraries).arg("-l:libcuda.so.1");
    assert!(cc.status().unwrap().success(), "{cc:?}");
    file
}

/// What a program prints, and that it ended by itself.
#[track_caller]
pub fn prints(container: &Container, arguments: &[&str], expected: &[&str]) {
    let program = compile(container, &[]);
    let output = container.program(&program, arguments).output().unwrap();
    assert_eq!(
        (lines(&output), output.status.code()),
        (expected.iter().map(|s| (*s).to_owned()).collect(), Some(0))
    );
}

/// The limiter reads files at a process' first call, and where it looks who is alive; a cancellation that is due waits
/// until the program itself comes to a point for it.
#[test]
fn a_thread_that_was_cancelled_is_not_unwound_out_of_the_limiter() {
    let container = Container::new(CAP, 100, 100);
    prints(&container, &["cancel", "init"], &["init 0", "joined 1"]);
    // it has lost its lock, so `/proc` has to tell that it lives
    let held = container.hold(Way::Linked, &["alloc:268435456", "touch"]);
    prints(&container, &["cancel", "alloc"], &["alloc 2", "joined 1"]);
    held.kill();
}

#[test]
fn a_program_whose_first_thread_has_ended_gets_its_share() {
    prints(&Container::new(CAP, 100, 100), &["leader"], &["init 0", "room 0"]);
}

#[test]
fn a_child_that_was_forked_during_the_first_call_of_another_thread_is_a_process_of_its_own() {
    let container = Container::new(CAP, 100, 100);
    let program = compile(&container, &["-DFORKS"]);
    let output = container.program(&program, &["forks"]).output().unwrap();
    assert_eq!(lines(&output), ["child 0", "ended 0", "parent 0"]);
}

/// A message of the limiter's is no reason to end.
#[test]
fn a_message_that_cannot_be_written_ends_no_program() {
    let container = Container::new(CAP, 100, 100);
    fs::remove_file(container.file(path::LIMITS)).unwrap();
    let program = compile(&container, &[]);
    for way in ["silent", "full"] {
        let mut command = container.program(&program, &[way]);
        if way == "silent" {
            command.stderr(Stdio::piped());
        } else {
            command.stderr(fs::File::create(container.root.path().join("errors")).unwrap());
        }
        let mut held = container.hold_command(command);
        drop(held.child.stderr.take());
        assert_eq!(held.ends().code(), Some(0), "{way}");
    }
}

#[test]
fn a_free_that_is_captured_gives_nothing_back() {
    for kind in ["linear", "pool"] {
        prints(&Container::new(CAP, 100, 100), &["captured", kind], &["alloc 0", "free 0", "room 2"]);
    }
}

/// As NVIDIA says of memory that was not allocated in the order of a stream: it is given back when the stream is waited for.
#[test]
fn memory_that_is_freed_in_the_order_of_a_stream_counts_until_that_was_waited_for() {
    for (how, stream, used, counted) in [
        ("none", "1", CAP, CAP),
        ("wait", "1", 0, 0),
        ("all", "1", 0, 0),
        // its context tells, when it is asked the next time
        ("destroy", "0", 0, CAP),
        ("busy", "1", CAP, CAP),
    ] {
        let container = Container::new(CAP, 100, 100);
        let program = compile(&container, &[]);
        let held = container.hold_command(container.program(&program, &["later", how, stream]));
        let answers: Vec<_> = held.lines.iter().filter(|line| line.starts_with("alloc")).collect();
        let expected = if how == "busy" { &["alloc 0", "alloc 2"][..] } else { &["alloc 0"; 3] };
        assert_eq!(answers, expected, "{how}");
        let report = container.report();
        assert_eq!((report.used, container.snapshot().held(0)), (used, counted), "{how}");
        assert!(report.peak <= CAP, "{how}: {} bytes were in use", report.peak);
    }
}

#[test]
fn a_small_piece_that_has_left_its_page_makes_room_for_another() {
    let expected = ["alloc 0", "alloc 0", "alloc 0", "alloc 0", "alloc 0", "free 0", "alloc 0", "room 2"];
    prints(&Container::new(CAP, 100, 100), &["small"], &expected);
}

#[test]
fn a_handle_that_another_thread_gets_again_is_of_its_own_memory() {
    let container = Container::new(CAP, 100, 100);
    let program = compile(&container, &["-rdynamic", "-Wl,-z,lazy"]);
    let folder = container.root.path().join("again");
    fs::create_dir(&folder).unwrap();
    compile_as(&container, "again/libcuda.so.1", &["-DAGAIN", "-shared", "-fPIC", "-Wl,--as-needed"]);
    let mut command = container.program(&program, &["again"]);
    command.env("LD_LIBRARY_PATH", &folder).env("REAL_DRIVER", Built::get().libraries.join("libcuda.so.1"));
    let expected = ["create 0", "release 0", "same 1", "room 2", "release 0", "room 0"];
    assert_eq!(lines(&command.output().unwrap()), expected);
}

/// The driver has taken the memory for a launch before the limiter can know; no further one is let through.
#[test]
fn graphs_that_run_at_the_same_time_exceed_the_share_once() {
    let container = Container::new(CAP, 100, 100);
    let program = compile(&container, &[]);
    let held = container.hold_command(container.program(&program, &["graphs"]));
    let expected = ["first 0", "first 0", "first 0", "first 0", "alloc 0", "then 0", "then 0", "then 0", "then 2"];
    assert_eq!(held.lines, expected);
    // half of it, and three graphs of a quarter
    assert_eq!(container.report().peak, CAP * 5 / 4);
    assert_eq!(container.snapshot().flags, Flags::OVER);
}

#[test]
fn a_pool_that_does_not_exist_costs_nothing() {
    prints(&Container::new(CAP, 100, 100), &["nopool"], &["alloc 1", "alloc 1", "alloc 1", "room 0"]);
}

#[test]
fn a_handle_of_the_hosts_memory_keeps_no_memory_of_the_card() {
    let expected = ["map 0", "map 0", "retain 0", "unmap 0", "release 0", "room 0"];
    prints(&Container::new(CAP, 100, 100), &["retain"], &expected);
}

/// CUDA 13.4 has memory near a part of the GPU; CUDA 13.0 has pools of managed memory, which the GPU takes to itself
/// wherever it would rather be.
#[test]
fn memory_at_any_place_but_the_host_counts() {
    for (what, kind, location, counts) in [
        ("create", "1", "1", true),
        ("create", "1", "2", false),
        ("create", "1", "4", false),
        ("create", "1", "5", true),
        ("pool", "1", "3", false),
        ("pool", "1", "5", true),
        ("pool", "2", "0", true),
        ("pool", "2", "2", true),
    ] {
        let answers = [&*format!("{what} 0"), if counts { "room 2" } else { "room 0" }];
        prints(&Container::new(CAP, 100, 100), &["place", what, kind, location], &answers);
    }
}

#[test]
fn a_piece_that_is_exported_again_and_again_is_one_piece() {
    let container = Container::new(CAP, 100, 100);
    let program = compile(&container, &[]);
    let exporter = container.hold_command(container.program(&program, &["exports"]));
    assert_eq!(exporter.lines, ["export 0"]);
    let other = container.hold(Way::Linked, &["create:67108864", "export"]);
    let import = format!("import:{}", other.told("descriptor"));
    let lines = container.run(Way::Linked, &[&import, "map:67108864", "alloc:67108864", "alloc:1"]);
    assert_eq!(lines[1..], ["map:67108864 0", "alloc:67108864 0", "alloc:1 2"]);
}

#[test]
fn a_context_ends_when_the_last_of_its_users_detaches() {
    let container = Container::new(CAP, 100, 100).with_contexts(0, 2 * MIB);
    let first = ["create 0", "alloc 0", "attach 0", "other 201", "detach 0", "room 2", "detach 0"];
    let more = ["create 0", "alloc 0", "attach 0", "other 201", "detach 0", "detach 0"];
    // all but the primary context's estimate
    prints(&container, &["detach"], &[&first[..], &more, &more, &more, &["room 0"]].concat());
}
