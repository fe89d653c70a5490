//! helm with the administrator's rights, and nothing that the user has configured.

use std::path::PathBuf;
use std::process::Command;

use kerf_cluster::tools::{output, workspace};

use super::stage::Stage;

/// helm of one version.
pub struct Helm<'a> {
    stage: &'a Stage<'a>,
    pub program: PathBuf,
}

impl<'a> Helm<'a> {
    /// Both versions that are in use, 3 and 4; `None`, and says so, where there is no helm.
    pub fn find(stage: &'a Stage<'a>) -> Option<[Self; 2]> {
        let Some(folder) = std::env::var_os("KERF_MANIFEST_TOOLS") else {
            println!(
                "        NOT RUN: KERF_MANIFEST_TOOLS names no folder with helm; tests/manifests/setup.sh gets it"
            );
            return None;
        };
        Some(["helm3", "helm4"].map(|name| Self { stage, program: PathBuf::from(&folder).join(name) }))
    }

    /// Runs it in a namespace.
    pub fn run(&self, namespace: &str, args: &[&str]) -> anyhow::Result<String> {
        let folder = self.stage.cluster.place().dir("helm")?;
        let mut command = Command::new(&self.program);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "KUBECACHEDIR"] {
            command.env(variable, folder.join(variable));
        }
        command.env("KUBECONFIG", self.stage.cluster.control.admin());
        output(command.args(args).args(["--namespace", namespace]))
    }
}

/// The chart's folder.
pub fn chart() -> String {
    workspace().join("charts/kerf").display().to_string()
}
