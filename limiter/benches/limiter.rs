//! What the limiter adds to a call of the driver, and to the start of a process: with the stand-in for the driver,
//! whose own calls take next to nothing. This program starts itself with and without the limiter, in turns, and finds
//! the driver as programs do that open it (`dlopen`, `dlsym`).
//!
//! `cargo bench -p kerf-limiter --bench limiter`; `KERF_BENCH_RAW` names a folder for the values.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark may stop at once")]

#[path = "../tests/container/support.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod support;

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::hint::black_box;
use std::mem;
use std::path::PathBuf;
use std::process::Command;
use std::ptr;
use std::time::Instant;

use kerf_bench_support::figures::{self, Figures};
use kerf_standin_card::clock::Clock;
use support::{Container, MIB, Way};

const CALLS: u32 = 100_000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, child, what] = &arguments[..]
        && child == "child"
    {
        in_container(what);
        return Ok(());
    }
    let test = figures::only_a_test();
    let (rounds, starts) = if test { (1, 1) } else { (30, 50) };
    let mut figures = Figures::new("limiter");

    for (what, name) in [("launch", "launch of a kernel"), ("alloc", "allocation of 1 MiB and its freeing")] {
        let cases =
            [("the driver alone", 100, false), ("whole card", 100, true), ("share of 50, not in debt", 50, true)];
        let (mut sums, mut least) = ([0.0; 3], [f64::INFINITY; 3]);
        let containers = cases.map(|(_, core, _)| Container::new(1024 * MIB, core, core));
        // in turns, so that other load of the machine affects all of them
        for round in 0..rounds {
            for (i, (case, _, limited)) in cases.iter().enumerate() {
                let nanoseconds = measure(&containers[i], what, *limited, CALLS);
                // the first one warms the machine up
                if round > 0 || test {
                    figures.value(&format!("{name}: {case}, round {round}"), "ns", nanoseconds);
                    sums[i] += nanoseconds / f64::from((rounds - 1).max(1));
                    least[i] = nanoseconds.min(least[i]);
                }
            }
        }
        for (i, (case, ..)) in cases.iter().enumerate() {
            figures.value(&format!("{name}: {case}, mean"), "ns", sums[i]);
            // where the machine has other work, this is nearer to what a call takes
            figures.value(&format!("{name}: {case}, least"), "ns", least[i]);
            if i > 0 {
                figures.value(&format!("{name}: {case}, added"), "ns", sums[i] - sums[0]);
            }
        }
    }

    launch_bound(&mut figures, if test { 100 } else { 20_000 });

    for processes in [0, 7, 31_usize.min(if test { 1 } else { 24 })] {
        let container = Container::new(1024 * MIB, 50, 50);
        let _others: Vec<_> = (0..processes).map(|_| container.hold(Way::Dlsym, &["alloc:1"])).collect();
        for limited in [false, true] {
            let mut sum = 0.0;
            for _ in 0..starts {
                sum += measure(&container, "start", limited, 1) / 1000.0;
            }
            let with = if limited { "with the limiter" } else { "the driver alone" };
            let name = format!("first use of a card beside {processes} processes: {with}, mean");
            figures.value(&name, "us", sum / f64::from(starts));
        }
    }
    // a process that does not use GPUs
    let container = Container::new(MIB, 50, 50);
    let mut sums = [0.0; 2];
    for _ in 0..starts {
        for (i, limited) in [false, true].into_iter().enumerate() {
            let mut command = container.program(&PathBuf::from("/bin/true"), &[]);
            preload(&mut command, limited);
            let began = Instant::now();
            assert!(command.status()?.success());
            sums[i] += began.elapsed().as_secs_f64() * 1e6 / f64::from(starts);
        }
    }
    figures.value("start and end of /bin/true, mean", "us", sums[0]);
    figures.value("start and end of /bin/true with the limiter, mean", "us", sums[1]);
    figures.finish(test)
}

/// A program that launches as fast as it can, in simulated time: what the limiter's own calls of the driver cost it, if they
/// cost what the stand-in says (`testkit/libcuda`). The same on every machine; the limiter's own instructions take no time.
fn launch_bound(figures: &mut Figures, launches: u32) {
    for (kernel, launch) in [(1_000, 4_000), (3_000, 4_000), (5_000, 10_000), (15_000, 20_000)] {
        for (case, limited) in [("the driver alone", false), ("share of 90", true)] {
            let files = tempfile::tempdir().unwrap();
            let clock = files.path().join("clock");
            Clock::create(&clock, 1_000_000_000, 1).unwrap();
            let container = Container::new(1024 * MIB, 90, 90).with_clock(&clock);
            let mut command = container.command(Way::Dlsym, &[&format!("launches:{kernel}:{launches}")]);
            preload(&mut command, limited);
            let output = command.env("STANDIN_LAUNCH_NS", launch.to_string()).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let total = text.strip_prefix("launched ").and_then(|t| t.split(' ').next()?.parse::<f64>().ok());
            let each = total.unwrap_or_else(|| panic!("{text}")) / f64::from(launches);
            let name = format!("launch that costs {launch} ns, of a kernel of {kernel} ns, simulated: {case}");
            figures.value(&name, "ns", each);
        }
    }
}

/// Without the stand-in for a container's clock: time is the machine's.
fn preload(command: &mut Command, limited: bool) {
    let built = support::Built::get();
    let container = built.container.display().to_string();
    let both = format!("{}:{container}", built.limiter.display());
    command.env("LD_PRELOAD", if limited { both } else { container });
}

/// Nanoseconds for each call, as a program in the container measures them.
fn measure(container: &Container, what: &str, limited: bool, calls: u32) -> f64 {
    let this = std::env::current_exe().unwrap();
    let mut command = container.program(&this, &["child", what]);
    command.env("STANDIN_INSTANT", "1");
    preload(&mut command, limited);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let total: f64 = text.trim().parse().unwrap_or_else(|_| panic!("{text} {:?}", output.stderr));
    total / f64::from(calls)
}

/// Runs in the container: prints the nanoseconds that it took.
fn in_container(what: &str) {
    type Launch = unsafe extern "C" fn(
        *mut c_void,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        *mut c_void,
        *mut *mut c_void,
        *mut *mut c_void,
    ) -> c_int;
    // SAFETY: the functions have these signatures, in the driver's documentation and in the stand-in; all pointers are
    // to locals.
    unsafe {
        let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW);
        let find = |name: &CStr| {
            let found = libc::dlsym(library, name.as_ptr());
            assert!(!found.is_null(), "{name:?}");
            found
        };
        let init: unsafe extern "C" fn(c_uint) -> c_int = mem::transmute(find(c"cuInit"));
        let retain: unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int =
            mem::transmute(find(c"cuDevicePrimaryCtxRetain"));
        let set: unsafe extern "C" fn(*mut c_void) -> c_int = mem::transmute(find(c"cuCtxSetCurrent"));
        let alloc: unsafe extern "C" fn(*mut u64, usize) -> c_int = mem::transmute(find(c"cuMemAlloc_v2"));
        let free: unsafe extern "C" fn(u64) -> c_int = mem::transmute(find(c"cuMemFree_v2"));
        let launch: Launch = mem::transmute(find(c"cuLaunchKernel"));

        let began = Instant::now();
        assert_eq!(init(0), 0);
        let mut context = ptr::null_mut();
        assert_eq!(retain(&raw mut context, 0), 0);
        assert_eq!(set(context), 0);
        let mut pointer = 0;
        assert_eq!(alloc(&raw mut pointer, 512), 0);
        if what == "start" {
            println!("{}", began.elapsed().as_nanos());
            return;
        }
        let began = Instant::now();
        for _ in 0..CALLS {
            match what {
                "launch" => {
                    let none = ptr::null_mut();
                    let status = launch(none, 1, 1, 1, 1, 1, 1, 0, none, ptr::null_mut(), ptr::null_mut());
                    assert_eq!(black_box(status), 0);
                }
                _ => {
                    assert_eq!(alloc(&raw mut pointer, 1 << 20), 0);
                    assert_eq!(free(black_box(pointer)), 0);
                }
            }
        }
        println!("{}", began.elapsed().as_nanos());
    }
}
