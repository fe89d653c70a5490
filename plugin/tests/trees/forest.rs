//! A tree on disk, and one scan of it with a backend.

use std::path::Path;

use kerf_plugin::testing::amd::scan::AmdOptions;
use kerf_plugin::testing::backend::{BackendError, HostDevice, Vendor};
use kerf_plugin::testing::intel::scan::IntelOptions;
use kerf_plugin::testing::nvidia::files::FilesOptions;
use kerf_plugin::testing::roots::Roots;
use kerf_plugin::testing::scan::Scan;
use kerf_plugin::testing::scanner::Files as _;
use kerf_testkit::tree::Tree;
use serde_json::Value;
use tempfile::TempDir;

pub struct Forest {
    pub dir: TempDir,
    pub roots: Roots,
}

impl Forest {
    pub fn named(letter: &str) -> Self {
        Self::of(&Tree::named(letter).unwrap())
    }

    pub fn described(description: Value) -> Self {
        Self::of(&Tree::new(description).unwrap())
    }

    fn of(tree: &Tree) -> Self {
        let dir = tempfile::tempdir().unwrap();
        tree.write(dir.path()).unwrap();
        let below = |name: &str| dir.path().join(name);
        let roots = Roots { sys: below("sys"), dev: below("dev"), proc: below("proc") };
        Self { dir, roots }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn look(&self, vendor: Vendor) -> Result<Scan, BackendError> {
        let roots = self.roots.clone();
        match vendor {
            Vendor::Amd => AmdOptions { roots, exporter: None }.scan(),
            Vendor::Intel => IntelOptions { roots, sidecar: None }.scan(),
            _ => FilesOptions { roots, ..FilesOptions::default() }.scan(),
        }
    }

    pub fn scan(&self, vendor: Vendor) -> Scan {
        self.look(vendor).unwrap()
    }
}

pub fn names(scan: &Scan) -> Vec<String> {
    scan.devices.iter().map(|host| host.device.id.to_string()).collect()
}

pub fn nodes(host: &HostDevice) -> Vec<String> {
    host.nodes.iter().map(|node| node.display().to_string()).collect()
}

/// The subjects that were left out, and why.
pub fn left_out(scan: &Scan) -> Vec<(String, &'static str)> {
    let out = scan.remarks.iter().filter(|remark| remark.left_out);
    out.map(|remark| (remark.subject.clone(), remark.why.code())).collect()
}
