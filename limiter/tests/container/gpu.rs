//! The script for a machine with a GPU, `tests/gpu/run.sh`, on the stand-ins: that it runs to its end, finds what holds and
//! what does not, and names what is missing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use kerf_standin_card::clock::Clock;
use tempfile::TempDir;

use crate::support::{Built, lines};

/// What the stand-in for the driver lacks.
const NOT_ON_THE_STAND_IN: &[&str] = &["a green context, which has half of the card, at 30 %"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/gpu")
}

/// What is built elsewhere for a machine with a GPU, once for all tests.
struct Bundle {
    container: PathBuf,
    program: PathBuf,
    _folder: TempDir,
}

fn bundle() -> &'static Bundle {
    static BUNDLE: OnceLock<Bundle> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let profile = Built::get().limiter.parent().unwrap().to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--offline",
            "--package",
            "kerf-limiter-contract",
            "--example",
            "container",
        ]);
        cargo.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("contract/Cargo.toml"));
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        cargo.args(profile.ends_with("release").then_some("--release"));
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
        let folder_of_it = tempfile::tempdir().unwrap();
        let program = folder_of_it.path().join("checks");
        let sources = fs::read_dir(folder().join("program")).unwrap().map(|entry| entry.unwrap().path());
        let mut cc = Command::new("cc");
        cc.args(["-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(&program);
        cc.args(sources.filter(|path| path.extension().is_some_and(|e| e == "c"))).arg("-ldl");
        assert!(cc.status().unwrap().success(), "{cc:?}");
        Bundle { container: profile.join("examples/container"), program, _folder: folder_of_it }
    })
}

/// A machine with the stand-ins for the driver, and tools that only answer.
struct Machine {
    folder: TempDir,
    limiter: PathBuf,
    container: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            folder: tempfile::tempdir().unwrap(),
            limiter: Built::get().limiter.clone(),
            container: bundle().container.clone(),
        };
        let libraries = machine.at("libraries");
        fs::create_dir(&libraries).unwrap();
        for name in ["libcuda.so.1", "libnvidia-ml.so.1"] {
            let target = fs::canonicalize(Built::get().libraries.join(name)).unwrap();
            symlink(target, libraries.join(name)).unwrap();
        }
        symlink(&Built::get().container, libraries.join("libstandin_container.so")).unwrap();
        Clock::create(&libraries.join("clock"), 0, 1).unwrap();
        machine.tool("python", "echo 1.0");
        machine.tool("nvcc", "while [ $# -gt 1 ] && [ $1 != -o ]; do shift; done; [ $# = 1 ] || cp /bin/true $2");
        machine.tool("plugin-test", "exit 0");
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tool(&self, name: &str, body: &str) {
        fs::write(self.at(name), format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(self.at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(folder().join("run.sh"));
        command.arg("--standin").arg(self.at("libraries")).arg("--out").arg(self.at("out"));
        command.arg("--limiter").arg(&self.limiter).arg("--container").arg(&self.container);
        command.arg("--program").arg(&bundle().program).arg("--plugin-test").arg(self.at("plugin-test"));
        command.arg("--python").arg(self.at("python")).arg("--nvcc").arg(self.at("nvcc"));
        command.args(arguments).output().unwrap()
    }

    fn part(&self, stage: &str) -> String {
        fs::read_to_string(self.at("out/unknown-unknown").join(format!("{stage}.txt"))).unwrap()
    }

    fn report(&self) -> String {
        fs::read_to_string(self.at("out/unknown-unknown.txt")).unwrap()
    }
}

/// The names of the checks of a part, by verdict.
fn verdicts(part: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut verdicts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in part.lines() {
        for verdict in ["ok", "FAILED", "NOT RUN"] {
            if let Some(name) = line.strip_prefix(verdict).and_then(|rest| rest.strip_prefix("  ")) {
                verdicts.entry(verdict).or_default().push(name.trim());
            }
        }
    }
    verdicts
}

#[track_caller]
fn all_well(machine: &Machine, output: &Output, stages: &[&str]) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    for stage in stages {
        let part = machine.part(stage);
        let mut found = verdicts(&part);
        assert!(part.lines().last().unwrap().starts_with(&format!("end      {stage}: ")), "{part}");
        assert!(found.remove("ok").is_some_and(|ok| ok.len() >= 3), "{part}");
        assert_eq!(found.remove("FAILED"), None, "{part}");
        let not_run = found.remove("NOT RUN").unwrap_or_default();
        let expected =
            |name: &&str| NOT_ON_THE_STAND_IN.iter().any(|n| name.starts_with(n)) || name.ends_with("needs mounts");
        assert!(not_run.iter().all(expected), "{part}");
    }
}

#[test]
fn without_mounts_each_stage_comes_to_its_end_and_says_what_it_does_not_cover() {
    let machine = Machine::new();
    let output = machine.run(&["--no-mounts"]);
    let stages = ["machine", "memory", "compute", "pacing", "cost", "pytorch", "programs"];
    all_well(&machine, &output, &stages);
    for stage in stages {
        let part = machine.part(stage);
        assert!(part.contains("held by  LD_PRELOAD") && part.contains("not covered: "), "{part}");
        assert!(machine.report().contains(&part));
    }
    assert!(!machine.report().contains("missing"), "{}", machine.report());
}

#[test]
fn with_mounts_the_loader_takes_the_library() {
    let mounts = Command::new("unshare").args(["--mount", "true"]).output();
    if !mounts.is_ok_and(|output| output.status.success()) {
        println!("skipped: no mount namespaces");
        return;
    }
    let machine = Machine::new();
    let output = machine.run(&["machine", "memory"]);
    all_well(&machine, &output, &["machine", "memory"]);
    let part = machine.part("memory");
    assert!(part.contains("held by  a mounted /etc/ld.so.preload"), "{part}");
    assert!(verdicts(&part)["ok"].contains(&"two containers at a time have a cap each"), "{part}");
    let report = machine.report();
    for stage in ["compute", "pacing", "cost", "pytorch", "programs"] {
        assert!(report.contains(&format!("missing  {stage} was not run\n")), "{report}");
    }
}

#[test]
fn a_library_that_holds_nothing_fails_and_takes_one_step_more_than_the_cap() {
    let mut machine = Machine::new();
    machine.limiter = Built::get().container.clone();
    let output = machine.run(&["--no-mounts", "memory", "compute"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let part = machine.part("memory");
    let failed = &verdicts(&part)["FAILED"];
    for way in ["alloc", "managed", "pitch", "array", "create", "async", "pool", "graph"] {
        assert!(failed.contains(&format!("{way}: the cap holds").as_str()), "{part}");
        assert!(part.contains(&format!("{way}: 4928 of 4915 MiB")), "{part}");
    }
    assert!(failed.contains(&"8 racing processes stay below the cap and use it"), "{part}");
    let part = machine.part("compute");
    let failed = &verdicts(&part)["FAILED"];
    for how in ["small", "large", "graph"] {
        for share in [10, 30, 50, 90] {
            assert!(failed.contains(&format!("{how} kernels at {share} %, within 3 points").as_str()), "{part}");
        }
    }
}

#[test]
fn where_the_limiter_shuts_the_card_the_reason_is_in_each_part() {
    let mut machine = Machine::new();
    let real = machine.container.clone();
    machine.tool("container", &format!("{} \"$@\" || exit 2; echo nonsense >\"$1/limits\"", real.display()));
    machine.container = machine.at("container");
    let output = machine.run(&["--no-mounts", "machine", "memory"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for stage in ["machine", "memory"] {
        assert!(machine.part(stage).contains("kerf: /etc/kerf/limits: line 1 is not"), "{}", machine.part(stage));
    }
    assert_eq!(verdicts(&machine.part("memory"))["FAILED"], ["no program can use the card in a container"]);
}

#[test]
fn what_there_is_no_time_for_is_said_not_to_have_been_run() {
    let machine = Machine::new();
    let output = machine.run(&["--no-mounts", "--minutes", "0", "memory"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let part = machine.part("memory");
    assert_eq!(
        verdicts(&part).into_iter().collect::<Vec<_>>(),
        [("NOT RUN", vec!["all of it: there is no time left"])]
    );
    assert!(part.contains("end      memory: 0 ok, 0 failed, 1 not run"), "{part}");
}

#[test]
fn all_that_is_missing_is_named() {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = Command::new(folder().join("run.sh"));
    command.arg("--standin").arg(nowhere.path()).arg("--bundle").arg(nowhere.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = lines(&output);
    for file in ["libkerf_limiter.so", "container", "checks"] {
        let named = format!("missing: {}/{file} (", nowhere.path().display());
        assert!(said.iter().any(|line| line.starts_with(&named)), "{said:?}");
    }
    let mut machine = Machine::new();
    machine.tool("container", "echo GLIBC_2.99 not found; exit 1");
    machine.container = machine.at("container");
    let output = machine.run(&[]);
    assert_eq!(output.status.code(), Some(2));
    let said = lines(&output);
    assert!(
        said.iter().any(|line| line.ends_with("does not start on this machine: GLIBC_2.99 not found")),
        "{said:?}"
    );
}

#[test]
fn a_report_needs_no_card_and_says_which_part_is_missing_or_broke_off() {
    let results = tempfile::tempdir().unwrap();
    let parts = results.path().join("card-1");
    fs::create_dir(&parts).unwrap();
    fs::write(parts.join("machine.txt"), "stage    machine\ncommit   a\nok       x\n\nend      machine: 1 ok\n")
        .unwrap();
    fs::write(parts.join("memory.txt"), "stage    memory\ncommit   b\nFAILED   y\n").unwrap();
    let output = Command::new(folder().join("run.sh")).arg("report").arg(results.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let report = fs::read_to_string(results.path().join("card-1.txt")).unwrap();
    let head: Vec<&str> = report.lines().take_while(|line| *line != "----").collect();
    assert_eq!(
        head,
        [
            "missing  the end of memory: the run broke off",
            "missing  compute was not run",
            "missing  pacing was not run",
            "missing  cost was not run",
            "missing  pytorch was not run",
            "missing  programs was not run",
            "careful  the parts are of several commits",
            "commit   a",
            "commit   b",
            "end      machine: 1 ok",
            "FAILED   y",
            "",
        ]
    );
}
