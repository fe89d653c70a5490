//! What depends on the version of the cluster's Kubernetes.

use kerf::version::Version;
use kube::Client;

/// The version of the API server.
///
/// # Errors
/// Where it does not answer.
pub async fn version(client: &Client) -> anyhow::Result<Version> {
    Ok(client.apiserver_version().await?.git_version.parse()?)
}

/// Whether the API server is of at least this version, such as `1.36`.
///
/// # Errors
/// Where it does not answer.
pub async fn since(client: &Client, least: &str) -> anyhow::Result<bool> {
    Ok(version(client).await? >= least.parse()?)
}

/// The components of `manifests/` without which this version does not take those with kerf's own scheduler, as
/// `docs/install.md` says. They are given last.
///
/// # Errors
/// Where the API server does not answer.
pub async fn components(client: &Client) -> anyhow::Result<&'static [&'static str]> {
    Ok(if since(client, "1.36").await? { &[] } else { &["without-mutation"] })
}
