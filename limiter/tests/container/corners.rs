//! Programs that do what few do (`corners.c`): each runs as without the limiter, and is held.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kerf_limiter_contract::path;

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
