//! The way to the API server.

use std::path::Path;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client from the given kubeconfig, or from the surroundings: a pod's service account, or the user's kubeconfig.
/// It sends each request once: every caller has its own deadline and its own way to try again.
///
/// # Errors
/// Where the file cannot be read, or nothing names a cluster.
pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("--kubeconfig {} cannot be read", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context("no cluster: give --kubeconfig, or run in a pod")?,
    };
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
