//! A fixture tree on a node: the files of `/sys` and `/proc` that drivers would show, and device files in the node's
//! own
//! `/dev`. Flags tell the plugin where the former are; the latter are where kubelet, containerd and containers expect
//! them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use kerf_testkit::tree::Tree;

use crate::devices;
use crate::node::Node;

/// Major number of the device files: one for local use, without a driver. Opening one fails with "no such device" where
/// a container may open it, and with "not permitted" where it may not.
pub const MAJOR: u32 = 121;
/// Mode of the device files, as drivers set it.
pub const MODE: u32 = 0o660;

/// The GPUs of a fixture tree on a node, until it is dropped.
#[derive(Debug)]
pub struct Paper {
    root: PathBuf,
    /// The node's `/dev`.
    dev: PathBuf,
    /// Minor numbers of the device files, by name below `/dev`.
    minors: BTreeMap<String, u32>,
    /// Targets of links, by name below `/dev`.
    links: BTreeMap<String, PathBuf>,
}

impl Paper {
    /// Lays out a tree. A node has one such tree at a time.
    ///
    /// # Errors
    /// Where there is another one, or the system refuses.
    pub fn lay(node: &Node, tree: &Tree) -> anyhow::Result<Self> {
        let root = node.directory().join("paper");
        ensure!(!root.exists(), "{} has cards of paper already", node.name);
        let dev = node.directory().join("dev");
        let mut paper = Self { root, dev, minors: BTreeMap::new(), links: BTreeMap::new() };
        tree.write(&paper.root)?;
        paper.files(Path::new(""))?;
        fs::create_dir_all(paper.root.join("libraries/lib64"))?;
        fs::write(paper.root.join("libraries/lib64/libcuda.so.1"), &node.name)?;
        Ok(paper)
    }

    /// Makes a device file for every file of the tree's `dev`; links stay links.
    fn files(&mut self, below: &Path) -> anyhow::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(self.root.join("dev").join(below))?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = below.join(entry.file_name());
            let target = self.dev.join(&name);
            let kind = entry.file_type()?;
            if kind.is_dir() {
                fs::create_dir_all(&target)?;
                self.files(&name)?;
            } else if kind.is_symlink() {
                let leads_to = fs::read_link(entry.path())?;
                symlink(&leads_to, &target).with_context(|| target.display().to_string())?;
                self.links.insert(name.display().to_string(), leads_to);
            } else {
                let minor = u32::try_from(self.minors.len())?;
                devices::file(&target, (MAJOR, minor), MODE)?;
                self.minors.insert(name.display().to_string(), minor);
            }
        }
        Ok(())
    }

    /// The plugin's flags for the tree's paths, and for the path of a driver's libraries that `deepomatic` uses. Its
    /// `/dev` is the path at which the node's is seen from elsewhere, as in the manifests.
    pub fn flags(&self) -> Vec<String> {
        let below = |name: &str| self.root.join(name);
        let places = [
            ("sys-root", below("sys")),
            ("proc-root", below("proc")),
            ("dev-root", self.dev.clone()),
            ("host-path", below("libraries")),
        ];
        places.map(|(flag, place)| format!("--{flag}={}", place.display())).to_vec()
    }

    /// Removes a device file, as a driver does when its GPU is gone; or restores it.
    ///
    /// # Errors
    /// Where there is no such file, or it is in that state already.
    pub fn set_gone(&self, name: &str, gone: bool) -> anyhow::Result<()> {
        let (minor, path) = (self.minor(name)?, self.dev.join(name));
        match gone {
            true => fs::remove_file(&path).with_context(|| path.display().to_string()),
            false => devices::file(&path, (MAJOR, minor), MODE),
        }
    }

    /// The root of the files below `/sys` and `/proc`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The minor number of a device file, by its name below `/dev`.
    ///
    /// # Errors
    /// Where there is no such file.
    pub fn minor(&self, name: &str) -> anyhow::Result<u32> {
        self.minors.get(name).copied().with_context(|| format!("no device file {name}"))
    }

    /// The name below `/dev` of the device file to which a link below `/dev/dri/by-path` leads.
    ///
    /// # Errors
    /// Where there is no such link.
    pub fn leads_to(&self, link: &str) -> anyhow::Result<String> {
        let target = self.links.get(&format!("dri/by-path/{link}")).and_then(|target| target.file_name());
        Ok(format!("dri/{}", target.with_context(|| format!("no link {link}"))?.display()))
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        // no file may be in the way of the next tree; the rest is removed with the node
        let files = self.minors.keys().chain(self.links.keys());
        files.for_each(|name| drop(fs::remove_file(self.dev.join(name))));
        drop(fs::remove_dir_all(&self.root));
    }
}
