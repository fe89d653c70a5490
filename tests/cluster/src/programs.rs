//! kerf's own programs, and the objects that an administrator applies for them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use serde_json::Value;

use crate::control::Control;
use crate::place::Place;
use crate::process::{Process, Spec};
use crate::tools::{output, workspace};

/// Applies the objects of `manifests/base` and `components/control-plane` for a cluster, except the pods.
///
/// # Errors
/// Those of kubectl.
pub fn install(control: &Control) -> anyhow::Result<()> {
    let files = [
        "base/namespace",
        "base/retries",
        "base/plugin-rbac",
        "base/admission-policy",
        "base/requests",
        "base/network-policy",
        "base/flow-schema",
        "components/control-plane/rbac",
    ];
    for file in files {
        let path = workspace().join("manifests").join(file).with_extension("yaml");
        control.kubectl(&["apply", "-f", &path.display().to_string()])?;
    }
    Ok(())
}

/// The extender's account where it serves the cluster's own scheduler.
pub const BESIDE_CONTROL_PLANE: &str = "kerf-extender";

/// Paths of kerf's own programs.
#[derive(Clone, Debug)]
pub struct Programs {
    extender: PathBuf,
    pub(crate) plugin: PathBuf,
    pub(crate) limiter: PathBuf,
    /// A stand-in for the driver's library, for programs in containers.
    pub(crate) libcuda: PathBuf,
}

impl Programs {
    /// Builds them with cargo, for tests or, with `release`, for measuring.
    ///
    /// # Errors
    /// Where they do not compile.
    pub fn build(release: bool) -> anyhow::Result<Self> {
        let named = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let given = (named("KERF_EXTENDER"), named("KERF_PLUGIN"), named("KERF_LIMITER"), named("KERF_LIBCUDA"));
        if let (Some(extender), Some(plugin), Some(limiter), Some(libcuda)) = given {
            return Ok(Self { extender, plugin, limiter, libcuda });
        }
        let cargo = named("CARGO").unwrap_or_else(|| "cargo".into());
        let args =
            ["build", "--locked", "--workspace", "--all-features", "--bins", "--lib", "--message-format=json"];
        let mut command = Command::new(cargo);
        command.args(args).arg("--quiet").args(release.then_some("--release")).current_dir(workspace());
        eprintln!("building kerf's programs; the first time this takes minutes");
        let messages = output(&mut command).context("kerf's programs")?;
        let program = |name: &str| {
            let found = messages.lines().find_map(|line| {
                let message: Value = serde_json::from_str(line).ok()?;
                let own = message["target"]["name"] == name && message["target"]["kind"][0] == "bin";
                own.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
            });
            found.with_context(|| format!("cargo built no {name}"))
        };
        let library = |name: &str| {
            let found = messages.lines().find_map(|line| {
                let message: Value = serde_json::from_str(line).ok()?;
                let own = message["target"]["name"] == name && message["target"]["kind"][0] == "cdylib";
                own.then(|| message["filenames"][0].as_str().map(PathBuf::from)).flatten()
            });
            found.with_context(|| format!("cargo built no lib{name}.so"))
        };
        Ok(Self {
            extender: program("kerf-extender")?,
            plugin: program("kerf-plugin")?,
            limiter: library("kerf_limiter")?,
            libcuda: library("cuda")?,
        })
    }

    /// Path of the plugin.
    pub fn plugin(&self) -> &Path {
        &self.plugin
    }

    /// Path of the extender.
    pub fn extender(&self) -> &Path {
        &self.extender
    }

    /// Path of the command, which is built with the others.
    ///
    /// # Errors
    /// Where it is not beside them.
    pub fn command(&self) -> anyhow::Result<PathBuf> {
        let path = self.extender.with_file_name("kerf");
        anyhow::ensure!(path.is_file(), "{} is missing", path.display());
        Ok(path)
    }

    /// Path of the limiter's library.
    pub fn limiter(&self) -> &Path {
        &self.limiter
    }

    /// Starts the extender with a token of this account of kerf's namespace, and more flags beside the usual ones.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start_extender(
        &self,
        place: &Arc<Place>,
        control: &Control,
        account: &str,
        log: &str,
        more: &[&str],
    ) -> anyhow::Result<Process> {
        let kubeconfig = kubeconfig(control, account)?;
        let mut args = vec![
            format!("--listen=127.0.0.1:{}", control.ports.extender),
            format!("--metrics-listen=127.0.0.1:{}", control.ports.extender_metrics),
            format!("--debug-listen=127.0.0.1:{}", control.ports.extender_debug),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--log={log}"),
            "--log-format=json".to_owned(),
        ];
        args.extend(more.iter().map(|flag| (*flag).to_owned()));
        // of its log and its record, which are files
        let name = format!("kerf-extender{}", more.concat()).replace(std::path::MAIN_SEPARATOR, "-");
        Process::start(place, Spec::new(name, &self.extender, &args))
    }
}

/// A kubeconfig of an account of kerf's namespace; returns its path.
///
/// # Errors
/// Where there is no such account, or the file cannot be written.
pub(crate) fn kubeconfig(control: &Control, account: &str) -> anyhow::Result<PathBuf> {
    let token = control.kubectl(&["create", "token", account, "--namespace=kerf-system", "--duration=24h"])?;
    control.kubeconfig(account, &token)
}
