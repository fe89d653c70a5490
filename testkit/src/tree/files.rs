//! Files, directories and links below a root.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::Context;

pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    pub(super) fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn place(&self, path: &str) -> anyhow::Result<PathBuf> {
        let full = self.root.join(path);
        if let Some(parent) = full.parent() {
            std::fs::create_dir_all(parent).with_context(|| path.to_owned())?;
        }
        Ok(full)
    }

    pub(super) fn text(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        std::fs::write(self.place(path)?, format!("{text}{end}")).with_context(|| path.to_owned())
    }

    pub(super) fn dir(&self, path: &str) -> anyhow::Result<()> {
        std::fs::create_dir_all(self.root.join(path)).with_context(|| path.to_owned())
    }

    pub(super) fn link(&self, path: &str, target: &str) -> anyhow::Result<()> {
        let full = self.place(path)?;
        let _ = std::fs::remove_file(&full);
        symlink(target, full).with_context(|| path.to_owned())
    }

    pub(super) fn remove(&self, path: &str) -> anyhow::Result<()> {
        let full = self.root.join(path);
        let metadata = std::fs::symlink_metadata(&full).with_context(|| path.to_owned())?;
        if metadata.is_dir() {
            std::fs::remove_dir_all(full)?
        } else {
            std::fs::remove_file(full)?
        }
        Ok(())
    }

    /// The directory of a PCI device below `sys`, with the ids that every one has.
    pub(super) fn pci(&self, address: &str, vendor: &str, device: &str, class: &str) -> anyhow::Result<String> {
        let (domain, _) = address.split_once(':').context("a PCI address begins with its domain")?;
        let dir = format!("sys/devices/pci{domain}:00/{address}");
        self.text(&format!("{dir}/vendor"), vendor)?;
        self.text(&format!("{dir}/device"), device)?;
        self.text(&format!("{dir}/class"), class)?;
        self.link(
            &format!("sys/bus/pci/devices/{address}"),
            &format!("../../../devices/pci{domain}:00/{address}"),
        )?;
        Ok(dir)
    }

    /// Graphics nodes of a PCI device, their links in `sys/class/drm` and their files in `dev/dri`.
    pub(super) fn graphics(&self, dir: &str, address: &str, card: u32, render: Option<u32>) -> anyhow::Result<()> {
        let names = [Some(format!("card{card}")), render.map(|render| format!("renderD{render}"))];
        for name in names.iter().flatten() {
            self.link(&format!("{dir}/drm/{name}/device"), &format!("../../../{address}"))?;
            let below = dir.strip_prefix("sys/").unwrap_or(dir);
            self.link(&format!("sys/class/drm/{name}"), &format!("../../{below}/drm/{name}"))?;
            self.text(&format!("dev/dri/{name}"), "")?;
        }
        for (kind, name) in ["card", "render"].iter().zip(names.iter().flatten()) {
            self.link(&format!("dev/dri/by-path/pci-{address}-{kind}"), &format!("../{name}"))?;
        }
        Ok(())
    }
}
