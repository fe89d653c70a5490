//! The shipped library in images of other systems, loaded by their own loaders through a mounted `/etc/ld.so.preload`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::shipped::Shipped;
use crate::support::{Container, MIB, WAYS, lines};

const CAP: u64 = 256 * MIB;

/// The files of an image; `None` where the machine has none.
fn image(name: &str) -> Option<PathBuf> {
    let Some(images) = std::env::var_os("KERF_IMAGES") else {
        println!("NOT RUN: KERF_IMAGES names no folder with images; limiter/tests/images.sh gets them");
        return None;
    };
    Some(Path::new(&images).join(name))
}

/// Runs a program in an image, with the mounts of a container that has a share. `None` where mounts are not allowed.
fn run(image: &Path, shipped: &Shipped, container: &Container, program: &[&str]) -> Option<Output> {
    let mounts = "set -e; image=$1 root=$2 limiter=$3 inside=$4; shift 4; \
        mount --bind $root/etc/kerf $image/etc/kerf; mount --bind $root/run/kerf/state $image/run/kerf/state; \
        mount --bind $limiter $image/usr/lib/kerf/libkerf_limiter.so; \
        mount --bind $root/preload $image/etc/ld.so.preload; \
        mount --bind $root $image/test; mount --bind $inside $image/built; \
        mount --rbind /proc $image/proc; mount --rbind /dev $image/dev; \
        exec chroot $image \"$@\"";
    std::fs::write(container.root.path().join("preload"), kerf_limiter_contract::path::preload()).unwrap();
    let mut command = Command::new("unshare");
    // root has the rights already; other users get them in a user namespace, where that is allowed
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    command.args(if root { &["-m"][..] } else { &["-rm"] }).args(["sh", "-c", mounts, "sh"]);
    command.args([image, container.root.path(), &shipped.limiter, &shipped.inside]).args(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("LD_LIBRARY_PATH", "/built/lib").env("STANDIN_CARD", "/test/card").env("STANDIN_CONTEXT_MIB", "0");
    let output = command.output().unwrap();
    if String::from_utf8_lossy(&output.stderr).contains("Operation not permitted") {
        println!("NOT RUN: mount namespaces are not allowed here");
        return None;
    }
    Some(output)
}

#[test]
fn every_program_of_an_image_with_an_old_c_library_and_without_libgcc_starts() {
    let (Some(image), Some(shipped)) = (image("debian-11"), Shipped::get()) else { return };
    let container = Container::new(CAP, 50, 50);
    for program in [
        &["/bin/true"][..],
        &["/bin/sh", "-c", "echo started"],
        &["/bin/bash", "-c", "echo $(echo started | sed s/a/a/ | grep started)"],
        &["/usr/bin/perl", "-e", "print `echo started`"],
        &["/bin/cat", "/usr/lib/kerf/libkerf_limiter.so"],
    ] {
        let Some(output) = run(&image, shipped, &container, program) else { return };
        assert!(output.status.success() && output.stderr.is_empty(), "{program:?}: {output:?}");
        match program {
            ["/bin/true"] => assert!(output.stdout.is_empty()),
            ["/bin/cat", _] => assert!(output.stdout == std::fs::read(&shipped.limiter).unwrap()),
            _ => assert_eq!(lines(&output), ["started"], "{program:?}"),
        }
    }
}

#[test]
fn programs_of_an_image_with_an_old_c_library_are_held() {
    let (Some(image), Some(shipped)) = (image("debian-11"), Shipped::get()) else { return };
    for way in WAYS {
        let container = Container::new(CAP, 50, 50);
        let program = format!("/built/{way:?}");
        let commands = ["alloc:268435457", "alloc:268435456", "alloc:1", "spin:plain:100000:20", "nvml"];
        let Some(output) = run(&image, shipped, &container, &[&[&*program][..], &commands].concat()) else {
            return;
        };
        let lines = lines(&output);
        assert_eq!(lines[..3], ["alloc:268435457 2", "alloc:268435456 0", "alloc:1 2"], "{way:?}");
        assert_eq!(
            lines[4..],
            ["spin:plain:100000:20 0", "nvml 268435456 of 268435456, 268435456 of 268435456", "nvml 0"]
        );
        // it has an entry in the shared file
        assert_eq!(container.report().peak, CAP);
        assert!(container.snapshot().flags.names().next().is_none());
    }
}

/// Before glibc 2.34, `dlsym` is in a library of its own.
#[test]
fn the_c_library_of_an_old_image_in_ld_preload_does_not_switch_it_off() {
    let (Some(image), Some(shipped)) = (image("debian-11"), Shipped::get()) else { return };
    for preload in ["libdl.so.2", "libc.so.6", "libc.so.6:libdl.so.2", "libcuda.so.1"] {
        for way in WAYS {
            let container = Container::new(CAP, 50, 50);
            let (variable, program) = (format!("LD_PRELOAD={preload}"), format!("/built/{way:?}"));
            let program = ["/usr/bin/env", &variable, &program, "alloc:268435457", "alloc:268435456"];
            let Some(output) = run(&image, shipped, &container, &program) else { return };
            assert_eq!(lines(&output), ["alloc:268435457 2", "alloc:268435456 0"], "{preload} {way:?}");
        }
    }
}

/// musl reads no `/etc/ld.so.preload`, and NVIDIA's library needs glibc.
#[test]
fn programs_of_an_image_with_musl_start() {
    let (Some(image), Some(shipped)) = (image("musl"), Shipped::get()) else { return };
    let container = Container::new(CAP, 50, 50);
    let source = container.root.path().join("hello.c");
    std::fs::write(&source, "#include <stdio.h>\nint main(void) { puts(\"started\"); return 0; }\n").unwrap();
    shipped.compile("musl", &source, "hello", &["-dynamic"]);
    let Some(output) = run(&image, shipped, &container, &["/built/hello"]) else { return };
    assert!(output.status.success(), "{output:?}");
    assert_eq!(lines(&output), ["started"]);
}
