//! What gets past the limiter: the program is not held, and the host sees what it takes of the GPU, without a process that has
//! registered.

use std::fs;
use std::mem::offset_of;
use std::path::PathBuf;
use std::process::Command;

use kerf_limiter_contract::path;
use kerf_limiter_contract::state::{Device, Flags, State};
use kerf_standin_card::clock::Clock;

use crate::corners;
use crate::preload::{compile, look};
use crate::support::{Built, Container, MIB, Way, lines};
use crate::tampering::mounted;

const CAP: u64 = 256 * MIB;
const ALL: &str = "268435456";
const MORE: &str = "268435457";

/// The GPU had more in use than the cap, and no process has registered.
#[track_caller]
fn seen_by_the_host(container: &Container) {
    assert!(container.report().peak > CAP);
    assert_eq!(container.snapshot().processes, []);
}

fn loader() -> &'static str {
    if cfg!(target_arch = "aarch64") { "/lib/ld-linux-aarch64.so.1" } else { "/lib64/ld-linux-x86-64.so.2" }
}

/// The limiter is in the program's namespace alone, and it replaces neither `dlvsym` nor what a library is told to find in
/// its own libraries first.
#[test]
fn a_library_that_looks_past_the_limiter_is_not_held_and_the_host_sees_that() {
    for way in ["namespace", "deepbind", "dlvsym"] {
        let container = Container::new(CAP, 50, 50);
        let program = compile(&container, "lookups", &[]);
        let inside = compile(&container, "inside.so", &["-DLIBRARY", "-shared", "-fPIC"]);
        let inside = inside.to_str().unwrap();
        let arguments = if way == "dlvsym" { vec![way, MORE] } else { vec![way, inside, MORE] };
        let output = look(&container, &program, &arguments);
        assert_eq!(lines(&output), [format!("{way} 0"), format!("{MORE} 0")]);
        seen_by_the_host(&container);
    }
}

/// The loader as a program cannot be started again without its own arguments.
#[test]
fn the_c_library_before_the_limiter_by_the_loaders_own_argument_is_not_held_and_the_host_sees_that() {
    let container = Container::new(CAP, 50, 50);
    let loader = loader();
    let run = |way| {
        let program = Built::get().program(way);
        format!("{loader} --preload libc.so.6 {} alloc:{MORE}; ", program.display())
    };
    let Some(lines) = mounted(&container, &[run(Way::Linked), run(Way::Dlsym)].concat()) else { return };
    assert_eq!(lines, [format!("alloc:{MORE} 2"), format!("alloc:{MORE} 0")]);
    assert!(container.report().peak > CAP);
}

/// With the right to mount, or in a user namespace of its own; a volume of the pod does the same from the start.
#[test]
fn a_mount_over_the_limiters_files_decides_which_are_found() {
    let (container, other) = (Container::new(CAP, 50, 50), Container::new(2 * CAP, 50, 50));
    let script = format!(
        "mount --bind {} {}; $PROGRAM alloc:{MORE}; \
         : > {empty}; mount --bind {empty} {}; $PROGRAM alloc:536870913",
        other.file(path::LIMITS).display(),
        path::LIMITS,
        path::PRELOAD,
        empty = container.root.path().join("empty").display(),
    );
    let Some(lines) = mounted(&container, &script) else { return };
    assert_eq!(lines, [format!("alloc:{MORE} 0"), "alloc:536870913 0".to_owned()]);
    assert!(container.report().peak > 2 * CAP);
}

#[test]
fn a_program_in_another_root_is_held_where_it_finds_the_same_files() {
    let container = Container::new(CAP, 50, 50);
    let root = container.root.path().join("other");
    fs::create_dir(&root).unwrap();
    let (root, preload) = (root.display(), path::PRELOAD);
    let empty = container.root.path().join("empty");
    fs::write(&empty, "").unwrap();
    let script = format!(
        "mount --rbind / {root}; chroot {root} $PROGRAM alloc:{MORE} alloc:{ALL}; \
         mount --bind {} {root}{preload}; chroot {root} $PROGRAM alloc:{MORE}",
        empty.display()
    );
    let Some(lines) = mounted(&container, &script) else { return };
    assert_eq!(lines, [format!("alloc:{MORE} 2"), format!("alloc:{ALL} 0"), format!("alloc:{MORE} 0")]);
    assert!(container.report().peak > CAP);
}

/// As in images of Nix, whose glibc reads another file.
#[test]
fn a_program_of_a_loader_that_reads_another_file_is_not_held() {
    let container = Container::new(CAP, 50, 50);
    let changed = container.root.path().join("loader");
    fs::copy(loader(), &changed).unwrap();
    let mut bytes = fs::read(&changed).unwrap();
    let at = bytes.windows(path::PRELOAD.len()).position(|name| name == path::PRELOAD.as_bytes()).unwrap();
    bytes[at + 1] = b'x';
    fs::write(&changed, bytes).unwrap();
    let program = compile(&container, "lookups", &[&format!("-Wl,--dynamic-linker={}", changed.display())]);
    let Some(lines) = mounted(&container, &format!("{} opened {MORE}", program.display())) else { return };
    assert_eq!(lines, ["opened 0", &format!("{MORE} 0")]);
    seen_by_the_host(&container);
}

#[test]
fn a_library_that_audits_the_loader_or_answers_for_it_gets_past_the_limiter() {
    for (variable, flag) in [("LD_AUDIT", "-DAUDIT"), ("LD_PRELOAD", "-DPAST")] {
        let container = Container::new(CAP, 50, 50);
        let library = compile(&container, "past.so", &[flag, "-shared", "-fPIC"]);
        let program = Built::get().program(Way::Dlsym);
        let script = format!("{variable}={} exec {} alloc:{MORE}", library.display(), program.display());
        let Some(lines) = mounted(&container, &script) else { return };
        assert_eq!(lines, [format!("alloc:{MORE} 0")], "{variable}");
        seen_by_the_host(&container);
    }
}

/// What is charged is one number for all processes, and not known to any of them otherwise.
#[test]
fn a_program_that_overwrites_what_is_charged_is_not_held_back_and_the_host_sees_what_it_has() {
    let clock_dir = tempfile::tempdir().unwrap();
    let clock = clock_dir.path().join("clock");
    Clock::create(&clock, 1_000_000_000_000, 1).unwrap();
    let container = Container::new(CAP, 10, 10).with_clock(&clock);
    let program = corners::compile(&container, &[]);
    let due = (offset_of!(State, devices) + offset_of!(Device, due)).to_string();
    let output = container.program(&program, &["uncharged", &due, "10000000"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let took: u64 = text.trim().strip_prefix("took ").unwrap().parse().unwrap();
    // at a tenth of the GPU 10 s
    assert!((1_000_000_000..1_200_000_000).contains(&took), "{took}");
}

/// Whose `/proc` may not be read cannot show that it lives. It counts again from its next allocation on.
#[test]
fn a_process_that_has_lost_its_lock_and_hides_what_it_maps_counts_for_nobody() {
    let container = Container::new(CAP, 50, 50);
    let program = corners::compile(&container, &[]);
    let held = container.hold_command(container.program(&program, &["hidden"]));
    assert_eq!(held.lines, ["alloc 0"]);
    let other = container.command(Way::Linked, &[&format!("alloc:{ALL}")]);
    // root may read it, unless it gives up the right to
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]);
    command.arg(other.get_program()).args(other.get_args()).env_clear();
    command.envs(other.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(lines(&command.output().unwrap()), [format!("alloc:{ALL} 0")]);
    assert!(container.report().peak > CAP);
}

/// A descriptor is told by its number, since all of the driver's are of one file.
#[test]
fn memory_that_only_another_descriptor_keeps_counts_for_nobody() {
    let container = Container::new(CAP, 50, 50);
    corners::prints(&container, &["kept"], &["create 0", "export 0", "release 0", "room 0"]);
}

/// A driver whose functions can be had by ways that the limiter does not know.
fn driver(container: &Container) -> PathBuf {
    let folder = container.root.path().join("stub");
    fs::create_dir(&folder).unwrap();
    compile(container, "stub/libcuda.so.1", &["-DSTUB", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]);
    folder
}

#[test]
fn functions_of_the_drivers_tables_and_versions_that_are_not_known_are_passed_on() {
    for (way, flags) in [("table", Flags::default()), ("newer", Flags::UNKNOWN_VERSION)] {
        let container = Container::new(CAP, 50, 50);
        let program = compile(&container, "lookups", &[]);
        let mut command = container.program(&program, &[way, MORE]);
        let real = Built::get().libraries.join("libcuda.so.1");
        command.env("LD_LIBRARY_PATH", driver(&container)).env("REAL_DRIVER", real);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{way} 0\n{MORE} 0\n"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(told.contains("a version of \"cuMemAlloc\" that is not known"), way == "newer", "{told}");
        assert!(container.report().peak > CAP);
        assert_eq!(container.snapshot().flags, flags);
        assert_eq!(container.snapshot().held(0), 0, "more memory than the account");
    }
}
