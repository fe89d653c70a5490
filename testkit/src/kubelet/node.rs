//! The Node object: made if it is missing, and its status kept in line with the devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::shared::{RETRY, Shared};
use crate::clock;

/// Makes the Node object, or labels the one that is there.
pub(crate) async fn register(shared: &Shared) -> anyhow::Result<()> {
    let config = &shared.config;
    let mut labels = config.labels.clone();
    labels.insert("kubernetes.io/hostname".to_owned(), config.node.clone());
    let native = json!({ "cpu": "64", "memory": "256Gi", "pods": "110" });
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastHeartbeatTime": clock::now(), "lastTransitionTime": clock::now(),
    });
    let info = json!({ "kubeletVersion": config.version });
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": config.node, "labels": labels },
        "status": { "capacity": native, "allocatable": native, "conditions": [ready], "nodeInfo": info },
    });
    loop {
        let answer = match shared.client.post("/api/v1/nodes", &node).await {
            Err(error) if error.code() == Some(409) => {
                let patch = json!({
                    "metadata": { "labels": labels },
                    "status": { "conditions": [ready], "nodeInfo": info },
                });
                shared.client.patch(&status_path(shared), &patch).await
            }
            answer => answer,
        };
        match answer {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.code(), Some(400..500)) => return Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "node not registered");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Writes capacity and allocatable whenever they change.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut changes = shared.changes();
    let mut written: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    loop {
        changes.borrow_and_update();
        let amounts = shared.books().amounts();
        if amounts != written {
            let list = |pick: fn(&(usize, usize)) -> usize| -> Map<String, Value> {
                amounts.iter().map(|(resource, both)| (resource.clone(), pick(both).to_string().into())).collect()
            };
            let patch = json!({ "status": {
                "capacity": list(|(capacity, _)| *capacity),
                "allocatable": list(|(_, allocatable)| *allocatable),
            } });
            match shared.client.patch(&status_path(&shared), &patch).await {
                Ok(_) => written = amounts,
                Err(error) => {
                    tracing::debug!(%error, "node status not written");
                    tokio::time::sleep(RETRY).await;
                }
            }
            continue;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn status_path(shared: &Shared) -> String {
    format!("/api/v1/nodes/{}/status", shared.config.node)
}
