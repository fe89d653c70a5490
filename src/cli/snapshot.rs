//! A cluster as `kubectl get nodes,pods -A -o json` prints it, as ledgers.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kerf::annotation::{Keys, Record};
use kerf::ids::NodeName;
use kerf::k8s;
use kerf::ledger::{Held, NodeLedger};
use serde_json::Value;

/// More than any cluster's snapshot: a bound on what is read into memory.
const MAX_BYTES: u64 = 2 << 30;

/// The text of a file, or of standard input for `-`.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let name = path.display();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text).context("standard input")
    } else {
        let file = std::fs::File::open(path).with_context(|| name.to_string())?;
        file.take(MAX_BYTES).read_to_string(&mut text).with_context(|| name.to_string())
    };
    ensure!((read? as u64) < MAX_BYTES, "{name}: larger than {} GiB", MAX_BYTES >> 30);
    Ok(text)
}

/// Every node's ledger, with the pods that are bound and have not ended.
pub fn ledgers(path: &Path, keys: &Keys) -> anyhow::Result<BTreeMap<NodeName, NodeLedger>> {
    let name = path.display();
    let text = read(path)?;
    let list: Value = serde_json::from_str(&text).with_context(|| format!("{name}: no JSON"))?;
    let Some(items) = list["items"].as_array() else {
        bail!("{name}: no list; expected what `kubectl get nodes,pods --all-namespaces --output json` prints");
    };
    let mut ledgers: BTreeMap<NodeName, NodeLedger> = BTreeMap::new();
    for (number, item) in items.iter().enumerate() {
        let at = || format!("{name}: item {number}, {} {}", item["kind"], item["metadata"]["name"]);
        match item["kind"].as_str() {
            Some("Node") => {
                let node: Node = serde_json::from_value(item.clone()).with_context(at)?;
                if let Some(view) = k8s::node(&node, keys) {
                    ledgers.entry(view.name).or_default().set_inventory(view.inventory.as_ref().ok());
                }
            }
            Some("Pod") => {
                let pod: Pod = serde_json::from_value(item.clone()).with_context(at)?;
                if let Some(view) = k8s::pod(&pod, keys).filter(|view| !view.ended)
                    && let (Some(node), Ok(Some(request))) = (view.node, &view.request)
                {
                    let held = match view.record {
                        Record::Placed(placement) => Held::Plan(placement.plan),
                        Record::Absent | Record::Unreadable(_) => Held::Unreadable,
                    };
                    let ledger = ledgers.entry(node).or_default();
                    ledger.observe(&view.uid, &view.pod, request, held, view.confirmed, 0);
                }
            }
            _ => {}
        }
    }
    ensure!(!ledgers.is_empty(), "{name}: holds no node");
    Ok(ledgers)
}
