//! The programs that a cluster needs: finds them, and names those that are missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

const SYSTEM: [&str; 7] = ["runc", "busybox", "openssl", "unshare", "nsenter", "tar", "sha256sum"];
const BUILT: [&str; 9] = [
    "etcd",
    "kube-apiserver",
    "kube-scheduler",
    "kube-controller-manager",
    "kubelet",
    "kubectl",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
];
/// Debian's directory of network plugins.
pub const NETWORK_PLUGINS: &str = "/usr/lib/cni";

/// Paths of the programs that were found.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The directories of Kubernetes, containerd and etcd.
    built: Vec<PathBuf>,
}

/// This crate's directory.
fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    home().join("../..")
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// With its output, where it fails.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_owned();
    let output = command.output().with_context(|| program.display().to_string())?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{error}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Tools {
    /// Looks for all programs, those of Kubernetes in the version that `KERF_KUBERNETES` says.
    ///
    /// # Errors
    /// Names all missing programs and how to get them.
    pub fn find() -> anyhow::Result<Self> {
        let mut missing = Vec::new();
        if !rustix::process::geteuid().is_root() {
            missing.push("root's rights".to_owned());
        }
        let directories = output(Command::new(home().join("setup.sh")).arg("where"))?;
        let built: Vec<PathBuf> = std::env::split_paths(&directories).collect();
        let unbuilt: Vec<String> =
            built.iter().filter(|path| !path.is_dir()).map(|path| path.display().to_string()).collect();
        if unbuilt.is_empty() {
            let there = |name: &&&str| built.iter().any(|directory| directory.join(name).exists());
            missing.extend(BUILT.iter().filter(|name| !there(name)).map(ToString::to_string));
        }
        missing.extend(unbuilt);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = |name: &&&str| std::env::split_paths(&path).any(|directory| directory.join(name).exists());
        missing.extend(SYSTEM.iter().filter(|name| !found(name)).map(ToString::to_string));
        if !Path::new(NETWORK_PLUGINS).join("ptp").exists() {
            missing.push("network plugins".to_owned());
        }
        if missing.is_empty() {
            Ok(Self { built })
        } else {
            let version = std::env::var("KERF_KUBERNETES").map(|version| format!("KERF_KUBERNETES={version} "));
            let version = version.unwrap_or_default();
            bail!("missing: {}. As root, `{version}tests/cluster/setup.sh` gets them", missing.join(", "))
        }
    }

    /// Path of one of the built programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.built
            .iter()
            .map(|directory| directory.join(name))
            .find(|path| path.exists())
            .unwrap_or_else(|| name.into())
    }

    /// A search path in which all are found, the built programs first.
    pub fn path(&self) -> String {
        let built: String = self.built.iter().map(|directory| format!("{}:", directory.display())).collect();
        format!("{built}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    }
}
