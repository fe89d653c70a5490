//! What a tenant may try, and the result. Nothing is silent: the program fails with a reason, or the host can see it.

use std::fs;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use kerf_limiter_contract::limits::DeviceLimits;
use kerf_limiter_contract::path;
use kerf_limiter_contract::state::{self, Flags, State};

use crate::support::{Built, Container, MIB, UUID, WAYS, Way, lines};

const CAP: u64 = 256 * MIB;
const ALL: &str = "alloc:268435456";
const MORE: &str = "alloc:268435457";

/// Every call is refused, and the first one names the file and the reason.
#[track_caller]
fn shut(container: &Container, reason: &str) {
    for way in WAYS {
        let mut lines = container.run(way, &["alloc:1"]);
        lines.sort();
        assert_eq!(lines, ["cuInit 802", &format!("kerf: {reason}; this container's GPUs cannot be used")]);
    }
}

#[test]
fn without_limits_nothing_works_and_the_file_is_named() {
    let container = Container::new(CAP, 50, 50);
    fs::remove_file(container.file(path::LIMITS)).unwrap();
    shut(&container, "/etc/kerf/limits: No such file or directory (os error 2)");
}

#[test]
fn with_damaged_limits_nothing_works_and_the_damage_is_named() {
    let container = Container::new(CAP, 50, 50);
    let whole = fs::read_to_string(container.file(path::LIMITS)).unwrap();
    container.write(path::LIMITS, whole.strip_suffix("end\n").unwrap());
    shut(&container, "/etc/kerf/limits: the last line is not \"end\"");
    container.write(path::LIMITS, whole.replace("memory 268435456", "memory unlimited"));
    shut(&container, "/etc/kerf/limits: line 2: memory is out of range");
    container.write(path::LIMITS, whole.replace("limits 1", "limits 2"));
    shut(&container, "/etc/kerf/limits: version 2, expected 1");
    container.write(path::LIMITS, "");
    shut(&container, "/etc/kerf/limits: line 1 is not \"kerf-limits 1\"");
}

#[test]
fn without_a_usable_state_nothing_works_and_the_file_is_named() {
    let container = Container::new(CAP, 50, 50);
    container.write(path::STATE, [0; 100]);
    shut(&container, &format!("/run/kerf/state: 100 bytes long, expected {}", state::BYTES));
    container.write(path::STATE, vec![0; state::BYTES]);
    shut(&container, "/run/kerf/state: does not begin as a state file does");
    fs::remove_file(container.file(path::STATE)).unwrap();
    shut(&container, "/run/kerf/state: No such file or directory (os error 2)");
}

#[test]
fn an_account_that_was_overwritten_is_put_right_and_flagged() {
    for content in [0_u8, 0xff] {
        let container = Container::new(CAP, 50, 50);
        let held = container.hold(Way::Linked, &[ALL, "hold", "alloc:1", "free", ALL, "alloc:1"]);
        // everything but the header
        let mut bytes = fs::read(container.file(path::STATE)).unwrap();
        bytes[offset_of!(State, processes)..].fill(content);
        // in place: the file is mapped
        fs::OpenOptions::new().write(true).open(container.file(path::STATE)).unwrap();
        overwrite(&container.file(path::STATE), &bytes);
        let after = held.finish();
        if content == 0 {
            assert_eq!(after, ["hold 0", "alloc:1 2", "free 0", &format!("{ALL} 0"), "alloc:1 2"]);
        } else {
            // other processes seem to hold more than there is: nothing more is given out
            assert_eq!(after[..3], ["hold 0", "alloc:1 2", "free 0"]);
        }
        assert!(container.report().peak <= CAP);
        let flags = container.snapshot().flags;
        assert!(flags.contains(Flags::OVERWRITTEN), "{:?}", flags.names().collect::<Vec<_>>());
    }
}

fn overwrite(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, 0).unwrap();
}

#[test]
fn a_shortened_state_ends_the_programs_that_use_it() {
    let container = Container::new(CAP, 50, 50);
    let held = container.hold(Way::Linked, &["alloc:1", "hold", "alloc:2097152"]);
    fs::OpenOptions::new().write(true).open(container.file(path::STATE)).unwrap().set_len(0).unwrap();
    // SIGBUS: it does not reach the second allocation
    assert_eq!(held.finish(), Vec::<String>::new());
    assert!(container.report().peak <= 2 * MIB);
    // and no other begins
    shut(&container, &format!("/run/kerf/state: 0 bytes long, expected {}", state::BYTES));
}

#[test]
fn a_card_that_the_limits_do_not_name_cannot_be_used() {
    let container = Container::new(CAP, 50, 50);
    let other = "GPU-00000000-0000-4000-8000-000000000000";
    container.limit(vec![DeviceLimits { uuid: other.into(), memory: CAP, core: 50, ceiling: 50, context: 0 }]);
    let mut lines = container.run(Way::Linked, &["alloc:1", "array:64:64:1:1", "async:1", "create:2097152"]);
    lines.sort();
    let message = format!("kerf: /etc/kerf/limits does not name {UUID}; its memory cannot be used");
    assert_eq!(lines, ["alloc:1 2", "array:64:64:1:1 2", "async:1 2", "create:2097152 2", &message]);
    assert!(container.snapshot().flags.contains(Flags::UNLISTED_DEVICE));
}

#[test]
fn what_a_context_takes_is_counted_where_the_limits_say_how_much() {
    let container = Container::new(CAP, 50, 50);
    let device = DeviceLimits { uuid: UUID.into(), memory: CAP, core: 50, ceiling: 50, context: 64 * MIB };
    container.limit(vec![device]);
    let held = container.hold(Way::Linked, &["alloc:201326592", "alloc:1"]);
    assert_eq!(held.lines, ["alloc:201326592 0", "alloc:1 2"]);
    assert_eq!(container.snapshot().held(0), CAP);
}

#[test]
fn a_program_without_the_limiter_is_one_that_the_host_sees_on_the_card_and_not_in_the_state() {
    let container = Container::new(CAP, 50, 50);
    let mut command = container.command(Way::Linked, &[MORE]);
    command.env_remove("LD_PRELOAD");
    assert_eq!(lines(&command.output().unwrap()), [format!("{MORE} 0")]);
    // the GPU had more in use than the cap, and no process has registered
    assert!(container.report().peak > CAP);
    assert_eq!(container.snapshot().processes, []);
}

/// `/etc/ld.so.preload` and the files at their real paths, by mounts in a mount namespace.
pub fn mounted(container: &Container, script: &str) -> Option<Vec<String>> {
    let built = Built::get();
    let root = container.root.path();
    let set_up = format!(
        "set -e; mount -t tmpfs none /run; mkdir /run/kerf; touch /run/kerf/state; \
         mount --bind {root}/run/kerf/state /run/kerf/state; \
         cp -a /etc {root}/mounted-etc; cp -a {root}/etc/kerf {root}/mounted-etc/; \
         echo {limiter} > {root}/mounted-etc/ld.so.preload; mount --bind {root}/mounted-etc /etc; \
         mount -o remount,bind,ro /etc; set +e; ",
        root = root.display(),
        limiter = built.limiter.display(),
    );
    let mut command = Command::new("unshare");
    // root has the rights already; other users get them in a user namespace, where that is allowed
    let own = fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    command.args(if own { &["-m"][..] } else { &["-rm"] }).args(["sh", "-c", &format!("{set_up} {script}")]);
    command.env("LD_LIBRARY_PATH", &built.libraries).env("STANDIN_CARD", &container.card);
    command
        .env("STANDIN_CONTEXT_MIB", "0")
        .env_remove("LD_PRELOAD")
        .env("PROGRAM", built.program(Way::GetProcAddress));
    let output = command.output();
    match output {
        Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("Operation not permitted") => {
            Some(lines(&output))
        }
        _ => {
            println!("NOT RUN: mount namespaces are not allowed here");
            None
        }
    }
}

#[test]
fn nothing_in_the_environment_switches_off_what_the_loader_reads_from_a_mounted_file() {
    let container = Container::new(CAP, 50, 50);
    let script = format!(
        "env -u LD_PRELOAD $PROGRAM {MORE}; LD_PRELOAD= $PROGRAM {MORE}; LD_PRELOAD=libm.so.6 $PROGRAM {MORE}; \
         CUDA_DISABLE_CONTROL=true $PROGRAM {MORE}; exec $PROGRAM {ALL}"
    );
    let Some(lines) = mounted(&container, &script) else { return };
    let refused = format!("{MORE} 2");
    assert_eq!(lines, [&*refused, &refused, &refused, &refused, &format!("{ALL} 0")]);
}

#[test]
fn the_mounted_files_cannot_be_changed() {
    let container = Container::new(CAP, 50, 50);
    let script = "echo x > /etc/kerf/limits; echo > /etc/ld.so.preload; rm /etc/ld.so.preload; \
                  rm /run/kerf/state; mv /run/kerf/state /run/kerf/other; true";
    let Some(lines) = mounted(&container, script) else { return };
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(lines.iter().all(|l| l.contains("Read-only file system") || l.contains("busy")), "{lines:?}");
}

/// The loader is not part of a static program, so neither is the limiter. glibc's `dlopen` in such a program loads some
/// libraries and crashes on others; where it loads the driver's, the program is not held, and the host sees that.
#[test]
fn a_static_program_is_not_held_and_never_seems_to_be() {
    let container = Container::new(CAP, 50, 50);
    let built = Built::get();
    let program = container.root.path().join("static");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/tenant.c");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-w", "-static", "-DDLSYM", "-pthread", "-o"]).arg(&program).arg(&source);
    assert!(cc.stderr(std::process::Stdio::null()).status().unwrap().success());
    let mut command = Command::new(&program);
    for (name, value) in container.command(Way::Dlsym, &[]).get_envs() {
        command.env(name, value.unwrap());
    }
    let output = command.env("LD_LIBRARY_PATH", &built.libraries).arg(MORE).output().unwrap();
    let (lines, peak) = (lines(&output), container.report().peak);
    match output.status.code() {
        Some(_) => assert!(lines == [format!("{MORE} 0")] && peak > CAP, "{lines:?} {peak}"),
        // by a signal
        None => assert!(lines.is_empty() && peak == 0, "{lines:?} {peak}"),
    }
    assert_eq!(container.snapshot().processes, []);
}

#[test]
fn a_copy_of_the_drivers_library_is_held_as_the_original() {
    let container = Container::new(CAP, 50, 50);
    let own = container.root.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::copy(Built::get().libraries.join("libcuda.so.1"), own.join("libcuda.so.1")).unwrap();
    for way in WAYS {
        let mut command = container.command(way, &[MORE, ALL]);
        command.env("LD_LIBRARY_PATH", &own);
        assert_eq!(lines(&command.output().unwrap()), [format!("{MORE} 2"), format!("{ALL} 0")]);
    }
}
