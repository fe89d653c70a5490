//! kerf's accounts have the rights that they use, and no others.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kerf_cluster::wait::until;
use kube::Api;
use rustix::process::Signal;
use serde_json::Value;

use crate::isolation::breach;
use crate::support::draft::mixed;
use crate::support::stage::{SOON, Stage};

/// Verb and resource, as `patch pods/status`.
type Rights = BTreeSet<String>;

/// The requests in the API server's audit log, without refused ones.
fn used(stage: &Stage<'_>, account: &str) -> anyhow::Result<(Rights, Vec<String>)> {
    let log = std::fs::read_to_string(stage.cluster.place().path("control/audit.log"))?;
    let user = format!("system:serviceaccount:kerf-system:{account}");
    let (mut used, mut refused) = (Rights::new(), Vec::new());
    // the last line may be half written
    for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let object = &event["objectRef"];
        if event["user"]["username"] != user.as_str() || object["resource"].is_null() {
            continue;
        }
        let verb = event["verb"].as_str().unwrap_or_default();
        let mut right = format!("{verb} {}", object["resource"].as_str().unwrap_or_default());
        if let Some(subresource) = object["subresource"].as_str() {
            right = format!("{right}/{subresource}");
        }
        // refused by RBAC, not by the admission policy, which a test provokes
        if event["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            refused.push(right);
        } else {
            used.insert(right);
        }
    }
    Ok((used, refused))
}

async fn granted(stage: &Stage<'_>, role: &str) -> anyhow::Result<Rights> {
    let role = Api::<ClusterRole>::all(stage.cluster.client.clone()).get(role).await?;
    let mut rights = Rights::new();
    for rule in role.rules.into_iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            rights.extend(rule.verbs.iter().map(|verb| format!("{verb} {resource}")));
        }
    }
    Ok(rights)
}

/// After a burst in which the API server does not answer for a while, so that the state of bindings is unknown.
pub async fn no_more_than_is_used(stage: &Stage<'_>) -> anyhow::Result<()> {
    let api = &stage.cluster.control.api;
    stage.create_all(&mixed(16, 1)).await?;
    api.signal(Signal::STOP)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    api.signal(Signal::CONT)?;
    stage.all_run(16, Duration::from_secs(120)).await?;
    // the plugin's one right that it uses only for a breach
    breach(stage, "m-0", "main").await?;
    for account in ["kerf-extender", "kerf-plugin"] {
        let granted = granted(stage, account).await.context("role")?;
        until(SOON, &format!("{account} has used all its rights"), async || {
            let (used, _) = used(stage, account)?;
            // rights that are used only by tests with its token
            let idle: Vec<&String> = granted.difference(&used).collect();
            ensure!(idle.is_empty(), "{account} may {idle:?} and never did; it did {used:?}");
            Ok(())
        })
        .await?;
        let (used, refused) = used(stage, account)?;
        let borrowed = "patch nodes".to_owned();
        let refused: Vec<String> = refused.into_iter().filter(|right| *right != borrowed).collect();
        ensure!(refused.is_empty(), "{account} wants {refused:?}, which it may not");
        let beyond: Vec<&String> = used
            .difference(&granted)
            .filter(|right| {
                // for the old configuration, and rights of a role in its own namespace; those of a component
                let of_others: &[&str] = match account {
                    "kerf-extender" => &["patch pods/status", "patch csistoragecapacities"],
                    _ => &["patch nodes"],
                };
                !of_others.contains(&right.as_str())
            })
            .collect();
        ensure!(beyond.is_empty(), "{account} did {beyond:?}, which its role does not say");
    }
    Ok(())
}
