//! The policies about users' pods, switched off: as in a cluster from before them, or without them.

use anyhow::{bail, ensure};
use kerf_cluster::wait::until;
use kube::api::PostParams;
use serde_json::json;

use super::draft::pod;
use super::stage::{SOON, Stage};

const BINDING: &str = "validatingadmissionpolicybinding/kerf-pods";

/// Runs `test` while the API server only audits what the policy would refuse.
pub async fn noted_only(stage: &Stage<'_>, test: impl AsyncFnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let result = match enforce(stage, "Audit").await {
        Ok(()) => test().await,
        Err(error) => Err(error),
    };
    result.and(enforce(stage, "Deny").await)
}

/// Sets the policy's action for a refused write, and waits until the API server applies it.
async fn enforce(stage: &Stage<'_>, action: &str) -> anyhow::Result<()> {
    let patch = json!({ "spec": { "validationActions": [action] } }).to_string();
    stage.cluster.control.kubectl(&["patch", BINDING, "--type=merge", "--patch", &patch])?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let named = pod("tried").app("main", 1, 1).with("nodeName", "node-1");
    let named = serde_json::from_value(named.value().clone())?;
    until(SOON, &format!("the policy is at {action}"), async || {
        match stage.pods().create(&dry, &named).await {
            Ok(_) => ensure!(action == "Audit", "allowed"),
            Err(kube::Error::Api(status)) if status.code == 403 => ensure!(action == "Deny", "{}", status.message),
            Err(error) => bail!(error),
        }
        Ok(())
    })
    .await
}

/// Leaves the test's namespace to other schedulers: there, requests that break a rule are not refused when they are
/// written.
pub async fn leave_out(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.cluster.control.kubectl(&["label", "namespace", stage.namespace(), "kerf=ignore"])?;
    until(SOON, "the namespace is left out", async || {
        ensure!(!refuses(stage).await?, "refused");
        Ok(())
    })
    .await
}

/// Takes it back in.
pub async fn take_in(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.cluster.control.kubectl(&["label", "namespace", stage.namespace(), "kerf-"])?;
    until(SOON, "the namespace is not left out", async || {
        ensure!(refuses(stage).await?, "allowed");
        Ok(())
    })
    .await
}

/// Whether a request that breaks a rule is refused.
async fn refuses(stage: &Stage<'_>) -> anyhow::Result<bool> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let broken = pod("tried").app("main", 150, 1).with("schedulerName", "kerf-scheduler");
    match stage.pods().create(&dry, &serde_json::from_value(broken.value().clone())?).await {
        Ok(_) => Ok(false),
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(true),
        Err(error) => bail!(error),
    }
}
