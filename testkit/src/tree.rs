//! Fixture trees: the files of `/sys`, `/dev` and `/proc` that GPU drivers of all vendors would show, made from
//! one JSON description.
//!
//! ```
//! let dir = std::env::temp_dir().join(format!("kerf-tree-{}", std::process::id()));
//! let description = serde_json::json!({ "cards": [
//!     { "vendor": "amd", "address": "0000:19:00.0", "card": 0, "render": 128, "memory": 17163091968u64 },
//!     { "vendor": "intel", "address": "0000:03:00.0", "card": 1, "render": 129, "driver": "xe" },
//!     { "vendor": "nvidia", "address": "0000:3b:00.0", "minor": 0, "uuid": "GPU-5c0d" },
//! ] });
//! kerf_testkit::tree::Tree::new(description).unwrap().write(&dir).unwrap();
//! assert!(dir.join("dev/dri/renderD129").exists());
//! std::fs::remove_dir_all(&dir).unwrap();
//! ```
//!
//! Directories and links are as the kernel makes them: a PCI device is below `sys/devices/pci<domain>:00`, and
//! everything else links there. Absent on purpose: every file that kerf does not read, and device numbers: the files in
//! `dev` are plain empty files.

mod amd;
mod files;
mod intel;
mod nvidia;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

use files::Files;

/// A description of a host's GPUs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tree {
    /// CPU sockets; each is a node of AMD's compute topology, before the nodes of its GPUs.
    pub cpus: u32,
    /// GPUs of all vendors.
    pub cards: Vec<Card>,
    /// Further devices on the PCI bus, such as GPUs that no driver serves.
    pub pci: Vec<Pci>,
    /// Names of further files in `dev`.
    pub dev: Vec<String>,
    /// Further files, or other content of files of the tree: path below the root, and text.
    pub files: BTreeMap<String, String>,
    /// Further links: path below the root, and target.
    pub links: BTreeMap<String, String>,
    /// Files, links and directories to leave out.
    pub without: Vec<String>,
}

/// A device on the PCI bus of which there is nothing else.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pci {
    address: String,
    /// PCI ids, as `0x1002`.
    vendor: String,
    device: String,
    /// As `0x030000`.
    class: String,
    /// `None`: no driver is bound to it.
    driver: Option<String>,
}

impl Pci {
    fn write(&self, files: &Files) -> anyhow::Result<()> {
        let dir = files.pci(&self.address, &self.vendor, &self.device, &self.class)?;
        if let Some(driver) = &self.driver {
            files.dir(&format!("sys/bus/pci/drivers/{driver}"))?;
            files.link(&format!("{dir}/driver"), &format!("../../../bus/pci/drivers/{driver}"))?;
        }
        Ok(())
    }
}

/// One GPU, by vendor.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "vendor", rename_all = "lowercase")]
pub enum Card {
    /// Driver `amdgpu`.
    Amd(Box<amd::Card>),
    /// Driver `i915` or `xe`.
    Intel(Box<intel::Card>),
    /// Driver `nvidia`.
    Nvidia(Box<nvidia::Card>),
}

impl Tree {
    /// Reads a JSON description.
    ///
    /// # Errors
    /// Where the description has an unknown field or a wrong value.
    pub fn new(description: Value) -> anyhow::Result<Self> {
        serde_json::from_value(description).context("description of a device tree")
    }

    /// The trees of this crate, by name: `a` to `g`, each of one vendor, and `mixed`.
    ///
    /// # Errors
    /// Where there is no such tree.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        Self::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("trees").join(format!("{name}.json")))
    }

    /// Reads a file with a JSON description.
    ///
    /// # Errors
    /// Where it cannot be read, has an unknown field or a wrong value.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let description = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        Self::new(description).with_context(|| path.display().to_string())
    }

    /// Writes `sys`, `dev` and `proc` below `root`, over existing files.
    ///
    /// # Errors
    /// Where a file, directory or link cannot be made.
    pub fn write(&self, root: &Path) -> anyhow::Result<()> {
        let files = Files::below(root);
        for directory in ["sys", "dev", "proc"] {
            std::fs::create_dir_all(root.join(directory))?;
        }
        let amd: Vec<&amd::Card> = self
            .cards
            .iter()
            .filter_map(|card| match card {
                Card::Amd(card) => Some(card.as_ref()),
                _ => None,
            })
            .collect();
        amd::write(&files, self.cpus, &amd)?;
        for card in &self.cards {
            match card {
                Card::Amd(_) => {}
                Card::Intel(card) => card.write(&files)?,
                Card::Nvidia(card) => card.write(&files)?,
            }
        }
        for device in &self.pci {
            device.write(&files)?;
        }
        for name in &self.dev {
            files.text(&format!("dev/{name}"), "")?;
        }
        for (path, text) in &self.files {
            files.text(path, text)?;
        }
        for (path, target) in &self.links {
            files.link(path, target)?;
        }
        for path in &self.without {
            files.remove(path)?;
        }
        Ok(())
    }
}
