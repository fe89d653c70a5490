//! Programs that put something before the limiter, or look for the driver's functions in less usual ways: held, or run as
//! they do without it.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{Built, Container, MIB, WAYS, Way, lines};
use crate::tampering::mounted;

const CAP: u64 = 256 * MIB;
const ALL: &str = "268435456";
const MORE: &str = "268435457";

/// `lookups.c`, as a program or a library.
pub fn compile(container: &Container, name: &str, flags: &[&str]) -> PathBuf {
    let file = container.root.path().join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/lookups.c");
    let mut cc = Command::new("cc");
    assert!(cc.args(["-O1", "-w", "-o"]).arg(&file).arg(source).args(flags).status().unwrap().success(), "{cc:?}");
    file
}

/// Runs a way of `lookups.c`.
pub fn look(container: &Container, program: &Path, arguments: &[&str]) -> Output {
    container.program(program, arguments).output().unwrap()
}

#[test]
fn the_c_library_or_the_driver_in_ld_preload_does_not_switch_it_off() {
    let driver = Built::get().libraries.join("libcuda.so.1");
    let driver = driver.display();
    for preload in [
        "libc.so.6".to_owned(),
        "libdl.so.2".to_owned(),
        "libcuda.so.1".to_owned(),
        driver.to_string(),
        format!("libm.so.6:{driver} libnvidia-ml.so.1 libc.so.6"),
        format!("{}:libc.so.6", Built::get().limiter.display()),
    ] {
        let container = Container::new(CAP, 50, 50);
        let run = WAYS.map(|way| {
            let program = Built::get().program(way);
            format!("LD_PRELOAD='{preload}' {} alloc:{MORE} alloc:{ALL} alloc:1 nvml; ", program.display())
        });
        let Some(lines) = mounted(&container, &run.concat()) else { return };
        let expected = [
            &*format!("alloc:{MORE} 2"),
            &format!("alloc:{ALL} 0"),
            "alloc:1 2",
            "nvml 268435456 of 268435456, 268435456 of 268435456",
            "nvml 0",
        ];
        assert_eq!(lines, expected.repeat(WAYS.len()), "{preload}");
        assert_eq!(container.report().peak, CAP);
    }
}

#[test]
fn other_libraries_in_ld_preload_stay_and_so_does_the_rest_of_the_environment() {
    let container = Container::new(CAP, 50, 50);
    let shell = r#"echo $0 $A $LD_PRELOAD "$@"; cat /proc/$$/comm"#;
    let file = container.root.path().join("shell");
    std::fs::write(&file, shell).unwrap();
    let script =
        format!("exec env LD_PRELOAD='libm.so.6:libc.so.6' A=b sh -c \"$(cat {})\" name 1 '2 3'", file.display());
    let Some(lines) = mounted(&container, &script) else { return };
    assert_eq!(lines, ["name b libm.so.6 1 2 3", "sh"]);
}

#[test]
fn the_next_function_behind_the_limiter_is_held() {
    let container = Container::new(CAP, 50, 50);
    let behind = compile(&container, "behind.so", &["-DLIBRARY", "-shared", "-fPIC"]);
    let driver = Built::get().libraries.join("libcuda.so.1");
    let linked = ["-DBEHIND", "-Wl,--no-as-needed", behind.to_str().unwrap(), driver.to_str().unwrap()];
    let program = compile(&container, "lookups", &linked);
    let output = look(&container, &program, &["next", MORE, ALL]);
    assert_eq!(lines(&output), ["next 0", &format!("{MORE} 2"), &format!("{ALL} 0")]);
}

#[test]
fn the_next_function_is_held_where_the_driver_was_loaded_for_one_library_alone() {
    let container = Container::new(CAP, 50, 50);
    let program = compile(&container, "lookups", &[]);
    let driver = Built::get().libraries.join("libcuda.so.1");
    let linked = ["-DLIBRARY", "-shared", "-fPIC", "-Wl,--no-as-needed", driver.to_str().unwrap()];
    let behind = compile(&container, "behind.so", &linked);
    let output = look(&container, &program, &["plugin", behind.to_str().unwrap(), MORE, ALL]);
    assert_eq!(lines(&output), ["plugin 0", &format!("{MORE} 2"), &format!("{ALL} 0")]);
}

#[test]
fn no_function_is_found_that_the_driver_lacks_and_none_before_it_is_loaded() {
    let container = Container::new(CAP, 50, 50);
    let program = compile(&container, "lookups", &[]);
    let mut without = container.program(&program, &["default", MORE]);
    without.env_remove("LD_PRELOAD");
    let looked = [
        "before cuMemAlloc_v2 missing",
        "before cuCtxCreate_v4 missing",
        "after cuMemAlloc_v2 found",
        "after cuCtxCreate_v4 missing",
        "default 0",
    ];
    assert_eq!(lines(&without.output().unwrap()), [&looked[..], &[&format!("{MORE} 0")]].concat());
    let output = look(&container, &program, &["default", MORE, ALL]);
    assert_eq!(lines(&output), [&looked[..], &[&format!("{MORE} 2"), &format!("{ALL} 0")]].concat());
}

#[test]
fn a_driver_that_only_the_program_finds_is_held() {
    let container = Container::new(CAP, 50, 50);
    let program = compile(&container, "lookups", &[]);
    let driver = container.root.path().join("driver.so");
    std::fs::copy(Built::get().libraries.join("libcuda.so.1"), &driver).unwrap();
    let mut by_path = container.program(&program, &["path", driver.to_str().unwrap(), MORE, ALL]);
    by_path.env_remove("LD_LIBRARY_PATH");
    assert_eq!(lines(&by_path.output().unwrap()), ["path 0", &format!("{MORE} 2"), &format!("{ALL} 0")]);
    let output = look(&container, &program, &["dlmopen", MORE, ALL]);
    assert_eq!(lines(&output), ["dlmopen 0", &format!("{MORE} 2"), &format!("{ALL} 0")]);
}

#[test]
fn a_tool_before_the_limiter_sees_calls_that_are_held() {
    let container = Container::new(CAP, 50, 50);
    let tool = compile(&container, "tool.so", &["-DTOOL", "-shared", "-fPIC"]);
    let mut command = container.command(Way::Linked, &[&format!("alloc:{MORE}"), &format!("alloc:{ALL}")]);
    let limiter = command.get_envs().find(|(name, _)| *name == "LD_PRELOAD").unwrap().1.unwrap().to_owned();
    let preload = format!("{}:{}", tool.display(), limiter.display());
    command.env("LD_PRELOAD", &preload);
    let expected = ["traced 2", &format!("alloc:{MORE} 2"), "traced 0", &format!("alloc:{ALL} 0")];
    assert_eq!(lines(&command.output().unwrap()), expected);
    // also where the program looks for it before there is a driver
    let mut command = container.program(&compile(&container, "lookups", &[]), &["default", MORE, ALL]);
    let looked = [
        "before cuMemAlloc_v2 found",
        "before cuCtxCreate_v4 missing",
        "after cuMemAlloc_v2 found",
        "after cuCtxCreate_v4 missing",
        "default 0",
    ];
    let allocated = ["traced 2", &format!("{MORE} 2"), "traced 0", &format!("{ALL} 0")];
    assert_eq!(lines(&command.env("LD_PRELOAD", &preload).output().unwrap()), [&looked[..], &allocated].concat());
}

/// Of two files with the driver's functions, the one that a program found first is called.
#[test]
fn a_second_copy_of_the_driver_is_held_as_the_first() {
    let container = Container::new(CAP, 50, 50);
    let program = compile(&container, "lookups", &[]);
    let second = compile(&container, "second.so", &["-DSECOND", "-shared", "-fPIC"]);
    let arguments = ["second", second.to_str().unwrap(), MORE, ALL];
    let mut without = container.program(&program, &arguments);
    let called = lines(&without.env_remove("LD_PRELOAD").output().unwrap());
    assert_eq!(called, ["second 0", "second file", &format!("{MORE} 0"), "second file", &format!("{ALL} 0")]);
    let output = look(&container, &program, &arguments);
    assert_eq!(lines(&output), ["second 0", &format!("{MORE} 2"), &format!("{ALL} 0")]);
}

#[test]
fn a_driver_that_loads_the_real_one_calls_it_and_not_the_limiter() {
    let container = Container::new(CAP, 50, 50);
    let program = compile(&container, "lookups", &[]);
    let folder = container.root.path().join("stub");
    std::fs::create_dir(&folder).unwrap();
    compile(&container, "stub/libcuda.so.1", &["-DSTUB", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]);
    let mut command = container.program(&program, &["opened", MORE, ALL]);
    command.env("LD_LIBRARY_PATH", folder).env("REAL_DRIVER", Built::get().libraries.join("libcuda.so.1"));
    assert_eq!(lines(&command.output().unwrap()), ["opened 0", &format!("{MORE} 2"), &format!("{ALL} 0")]);
}

#[test]
fn a_program_with_variables_of_the_drivers_names_is_held() {
    let container = Container::new(CAP, 50, 50);
    for flags in [&["-DVARIABLES"][..], &["-DVARIABLES", "-rdynamic"]] {
        let program = compile(&container, "variables", flags);
        let output = look(&container, &program, &["variables", MORE, ALL]);
        assert_eq!(lines(&output), ["variables 0", &format!("{MORE} 2"), &format!("{ALL} 0")], "{flags:?}");
    }
}

#[test]
fn a_program_with_a_function_of_the_drivers_name_finds_its_own_and_is_held() {
    let container = Container::new(CAP, 50, 50);
    let program = compile(&container, "own", &["-DOWN", "-rdynamic"]);
    let output = look(&container, &program, &["own", MORE, ALL]);
    assert_eq!(lines(&output), ["before cuInit own", "own 0", &format!("{MORE} 2"), &format!("{ALL} 0")]);
}

/// The loader resolves such a library's variables to the limiter's functions, as to those of any library that is loaded before
/// it; writing there ends the program.
#[test]
fn a_library_with_variables_of_the_drivers_names_works_where_it_is_linked_to_find_its_own_first() {
    let container = Container::new(CAP, 50, 50);
    for (flag, ends) in [("-Wl,-Bsymbolic", None), ("-DHIDDEN", None), ("-Wl,-Bdynamic", Some(libc::SIGSEGV))] {
        let library = compile(&container, "variables.so", &["-DVARIABLES", "-DLIBRARY", "-shared", "-fPIC", flag]);
        let program = compile(&container, "variables", &["-DFILLED", library.to_str().unwrap()]);
        let output = look(&container, &program, &["variables", MORE, ALL]);
        assert_eq!(output.status.signal(), ends);
        if ends.is_none() {
            assert_eq!(lines(&output), ["variables 0", &format!("{MORE} 2"), &format!("{ALL} 0")]);
        }
    }
}

#[test]
fn a_weak_reference_finds_the_limiters_function_which_says_that_there_is_no_driver() {
    let container = Container::new(CAP, 50, 50);
    let program = compile(&container, "weak", &["-DWEAK"]);
    let mut command = container.program(&program, &["weak", "1", "2", "3"]);
    command.env_remove("LD_LIBRARY_PATH").env("LD_DEBUG", "libs");
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("weak found\n{}", "500 500\n".repeat(3)));
    // the search is not made for each call
    let searches = String::from_utf8_lossy(&output.stderr).matches("find library=libcuda.so.1").count();
    assert_eq!(searches, 2);
}

#[test]
fn the_management_library_is_not_loaded_into_programs_that_do_not_use_it() {
    let container = Container::new(CAP, 50, 50);
    for way in WAYS {
        let held = container.hold(way, &["alloc:1"]);
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", held.child.id())).unwrap();
        assert!(maps.contains("libcuda") && !maps.contains("libnvidia_ml"), "{way:?}");
    }
}

#[test]
fn a_program_with_the_address_sanitizer_starts_finds_faults_and_is_held() {
    let container = Container::new(CAP, 50, 50);
    let program = compile(&container, "sanitized", &["-fsanitize=address"]);
    let script = format!("ASAN_OPTIONS=detect_leaks=0 exec {} opened {MORE} {ALL}", program.display());
    let Some(lines) = mounted(&container, &script) else { return };
    assert_eq!(lines, ["opened 0", &format!("{MORE} 2"), &format!("{ALL} 0")]);
    let source = container.root.path().join("fault.c");
    std::fs::write(&source, "#include <stdlib.h>\nint main(void) { volatile char *p = malloc(1); return p[1]; }\n")
        .unwrap();
    let fault = container.root.path().join("fault");
    let mut cc = Command::new("cc");
    assert!(cc.args(["-w", "-fsanitize=address", "-o"]).arg(&fault).arg(source).status().unwrap().success());
    let lines = mounted(&container, fault.to_str().unwrap()).unwrap().join(" ");
    assert!(lines.contains("heap-buffer-overflow"), "{lines}");
}
