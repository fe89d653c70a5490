//! CUDA's own runtime (`libcudart`): which of the driver's functions it asks for, and whose it gets. It asks for
//! tables that the stand-in does not have, so that on the simulated GPU it does not get beyond its start; on NVIDIA's own
//! driver without a GPU it finds none. With a GPU it is run by `tests/gpu`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::names::{base, functions};
use crate::nvidia;
use crate::support::{Built, Container, MIB, lines};

/// The runtimes of CUDA 12 and 13, and the versions that their drivers have; empty where the machine has none.
fn runtimes() -> Vec<(PathBuf, &'static str)> {
    let Some(folder) = std::env::var_os("KERF_PYTHON") else {
        println!("NOT RUN: KERF_PYTHON names no folder with CUDA's runtimes; limiter/tests/python.sh gets them");
        return Vec::new();
    };
    let releases: Vec<_> =
        std::fs::read_dir(Path::new(&folder).join("lib")).unwrap().map(|e| e.unwrap().path()).collect();
    let [release] = &releases[..] else { panic!("{releases:?}") };
    let nvidia = release.join("site-packages/nvidia");
    vec![
        (nvidia.join("cuda_runtime/lib/libcudart.so.12"), "12090"),
        (nvidia.join("cu13/lib/libcudart.so.13"), "13050"),
    ]
}

/// What `asked.c` prints: each function that was asked for, and the runtime's answer at the end. On the stand-in of this
/// version, or on the driver in this folder.
fn asked(runtime: &Path, driver: Driver<'_>, limited: bool) -> (Vec<[String; 6]>, String) {
    let container = Container::new(256 * MIB, 50, 50);
    let (program, observer) = (container.root.path().join("asked"), container.root.path().join("observer.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container/asked.c");
    for (flags, output) in [(&[][..], &program), (&["-DOBSERVER", "-shared", "-fPIC"], &observer)] {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall"]).args(flags).arg("-o").arg(output).arg(&source).arg("-ldl");
        assert!(cc.status().unwrap().success(), "{cc:?}");
    }
    let mut command = container.program(&program, &[runtime.to_str().unwrap()]);
    let built = Built::get();
    let (observer, inside) = (observer.display(), built.container.display());
    match driver {
        Driver::StandIn(version) => command.env("STANDIN_CUDA_VERSION", version),
        Driver::Nvidia(folder) => command.env("LD_LIBRARY_PATH", folder),
    };
    command.env(
        "LD_PRELOAD",
        match limited {
            true => format!("{observer}:{}:{inside}", built.limiter.display()),
            false => format!("{observer}:{inside}"),
        },
    );
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let mut lines = lines(&output);
    let last = lines.pop().unwrap();
    let lines = lines.iter().map(|line| {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        words.try_into().unwrap_or_else(|words| panic!("{words:?}"))
    });
    (lines.collect(), last)
}

#[derive(Clone, Copy, Debug)]
enum Driver<'a> {
    StandIn(&'a str),
    Nvidia(&'a Path),
}

/// That the runtime asks for the same with the limiter as without, gets the limiter's function wherever it would get one
/// of the driver that the limiter replaces, and ends alike.
fn compare(runtime: &Path, driver: Driver<'_>) -> String {
    let ours = functions(&Built::get().limiter);
    let families: BTreeSet<&str> = ours.iter().map(|name| base(name)).collect();
    let (without, end) = asked(runtime, driver, false);
    let (with, limited) = asked(runtime, driver, true);
    assert!(end.starts_with("count ") && end == limited, "{runtime:?}: {end} {limited}");
    assert!(without.len() > 350, "{runtime:?} {driver:?}: {}", without.len());
    assert_eq!(without.len(), with.len(), "{runtime:?} {driver:?}");
    let mut given = 0;
    for (driver, limiter) in without.iter().zip(&with) {
        assert_eq!(driver[..4], limiter[..4], "{runtime:?}");
        let [name, _, _, status, symbol, file] = limiter;
        let expected = status == "0" && families.contains(base(name));
        assert_eq!(expected, file == "libkerf_limiter.so", "{runtime:?}: {name} is {symbol} of {file}");
        // not each is answered with one of its own name, but with one that begins like it
        assert!(!expected || symbol.starts_with(base(name)), "{runtime:?}: {name} is {symbol} of {file}");
        given += usize::from(expected);
    }
    assert!(given > 40, "{runtime:?} {driver:?}: {given}");
    println!("{} on {driver:?}: {} functions, {given} of the limiter; {end}", runtime.display(), with.len());
    end
}

#[test]
fn the_cuda_runtime_is_given_the_limiters_functions_and_goes_as_far_as_without_it() {
    for (runtime, version) in runtimes() {
        compare(&runtime, Driver::StandIn(version));
    }
}

#[test]
fn the_cuda_runtime_on_nvidias_driver_is_given_the_limiters_functions_and_finds_no_gpu_either_way() {
    for driver in nvidia::libraries() {
        for (runtime, _) in runtimes() {
            let end = compare(&runtime, Driver::Nvidia(&driver));
            // no GPU, or a driver of the release of CUDA before
            assert!(["count 100 ", "count 35 "].iter().any(|way| end.starts_with(way)), "{end}");
        }
    }
}
