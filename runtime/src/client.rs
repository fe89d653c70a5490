//! Connections to the API server.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A connection on which nothing was read for this long is closed, also one that the other end has dropped. Above the
/// minute between two bookmarks of a silent watch.
const READ: Duration = Duration::from_secs(120);
/// The time limit for opening a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A client from the given kubeconfig, or else from a pod's service account or the user's kubeconfig. It sends each
/// request once: callers have their own deadlines and retries.
///
/// # Errors
/// Where the file cannot be read, or no cluster is configured.
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
    config.read_timeout = Some(READ);
    config.connect_timeout = Some(CONNECT);
    Ok(Client::try_from(config)?)
}
