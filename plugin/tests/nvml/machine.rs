//! A machine with NVIDIA's library: its files, and what the library answers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kerf_plugin::testing::backend::{Backend, HostDevice};
use kerf_plugin::testing::nvidia::nvml::{Nvidia, NvidiaOptions};
use kerf_plugin::testing::roots::Roots;
use kerf_plugin::testing::scan::Remark;
use kerf_testkit::tree::Tree;
use serde_json::{Value, json};
use tempfile::TempDir;

const LIBRARY: &str = "libnvidia-ml.so.1";
/// A thread has done its work within this time.
const SOON: Duration = Duration::from_secs(20);

/// The stand-in without these functions, over an older one.
pub fn library(directory: &Path, without: &[&str]) -> PathBuf {
    let (path, fresh) = (directory.join(LIBRARY), directory.join("fresh.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvml/standin.c");
    let renamed = without.iter().map(|function| format!("-D{function}=absent_{function}"));
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&fresh).args(renamed).arg(source).status();
    assert!(built.unwrap().success());
    // a new file, as a package manager puts it there: the old one stays what it is for those who have it
    std::fs::rename(&fresh, &path).unwrap();
    path
}

pub struct Machine {
    dir: TempDir,
}

impl Machine {
    /// Two cards of the library's, on the bus and in the driver's files.
    pub fn new() -> Self {
        let cards = [(0, "0000:3b:00.0", "GPU-0"), (1, "0000:3c:00.0", "GPU-1")];
        let cards = cards.map(|(minor, address, uuid)| {
            json!({ "vendor": "nvidia", "minor": minor, "address": address, "uuid": uuid, "model": "Stand-in" })
        });
        Self::described(&json!({ "cards": cards }))
    }

    pub fn described(tree: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Tree::new(tree.clone()).unwrap().write(dir.path()).unwrap();
        library(dir.path(), &[]);
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    /// The library of an older driver.
    pub fn without(self, functions: &[&str]) -> Self {
        library(self.dir.path(), functions);
        self
    }

    fn beside(&self, end: &str) -> PathBuf {
        self.path(&format!("{LIBRARY}.{end}"))
    }

    /// Replaces the table of answers: lines of function, uuid, and NVML's number of the error.
    pub fn answers(&self, lines: &str) {
        let fresh = self.path("answers");
        std::fs::write(&fresh, lines).unwrap();
        std::fs::rename(fresh, self.beside("answers")).unwrap();
    }

    /// Replaces the table of values: lines of function, uuid, and what it says.
    pub fn says(&self, lines: &str) {
        std::fs::write(self.beside("says"), lines).unwrap();
    }

    /// The driver reports an error of a card.
    pub fn event(&self, uuid: &str, xid: u64) {
        let fresh = self.path("event");
        std::fs::write(&fresh, format!("{uuid} {xid}")).unwrap();
        std::fs::rename(fresh, self.beside("events")).unwrap();
        eventually("the event is taken", || !self.beside("events").exists());
    }

    /// The second card is cut into other instances.
    pub fn cut_anew(&self) {
        std::fs::write(self.beside("recut"), "").unwrap();
    }

    /// There is no second card.
    pub fn single(&self) {
        std::fs::write(self.beside("single"), "").unwrap();
    }

    /// How often the library was initialized.
    pub fn inits(&self) -> usize {
        std::fs::read_to_string(self.beside("inits")).unwrap_or_default().lines().count()
    }

    pub fn options(&self) -> NvidiaOptions {
        NvidiaOptions {
            library: Some(self.path(LIBRARY)),
            roots: Roots { sys: self.path("sys"), dev: self.path("dev"), proc: self.path("proc") },
            mig: false,
            ..NvidiaOptions::default()
        }
    }

    pub fn backend(&self) -> Nvidia {
        Nvidia::new(self.options())
    }
}

pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "{what}");
        std::thread::yield_now();
    }
}

pub fn ids(hosts: &[HostDevice]) -> Vec<&str> {
    hosts.iter().map(|host| host.device.id.as_str()).collect()
}

/// The GPUs that are left out, and why.
pub fn left_out(backend: &Nvidia) -> Vec<(String, &'static str)> {
    told(backend, true)
}

/// What is told of GPUs that are offered.
pub fn notes(backend: &Nvidia) -> Vec<(String, &'static str)> {
    told(backend, false)
}

fn told(backend: &Nvidia, left_out: bool) -> Vec<(String, &'static str)> {
    let of = |remark: Remark| (remark.left_out == left_out).then(|| (remark.subject, remark.why.code()));
    backend.remarks().into_iter().filter_map(of).collect()
}

/// A check of the health names what the discovery did, so that none is due before its time.
pub fn settled(backend: &Nvidia) {
    for _ in 0..5 {
        let found: BTreeSet<_> = backend.discover().unwrap().into_iter().map(|host| host.device.id).collect();
        for _ in 0..3 {
            let known: BTreeSet<_> = backend.health().unwrap().into_keys().collect();
            assert_eq!(known, found);
        }
    }
}
