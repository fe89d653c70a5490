//! A cluster as `kubectl get nodes,pods -A -o json` prints it: as ledgers, and as a workload.

mod past;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::ensure;
use kerf::annotation::Keys;
use kerf::ids::NodeName;
use kerf::k8s;
use kerf::ledger::NodeLedger;
use kerf::placement::shape::Shape;
use kerf::placement::survey::{Sighting, Survey};

pub use past::workload;
pub use reading::pod;
use reading::{Item, each};

/// What an extender would know after seeing the same objects.
pub struct Cluster {
    /// Every node's, with the pods that are bound and have not ended.
    pub ledgers: BTreeMap<NodeName, NodeLedger>,
    /// Of all pods.
    pub survey: Survey,
    /// What nodes have under other resource domains.
    others: BTreeSet<String>,
}

impl Cluster {
    /// What explains that there is no GPU at all, if something does.
    pub fn note(&self, keys: &Keys) -> Option<String> {
        let others: Vec<&str> = self.others.iter().map(String::as_str).collect();
        let none = self.ledgers.values().all(|ledger| ledger.cards().is_empty());
        let say =
            || format!("no GPUs under {}; the nodes have {}: see --domain", keys.domain, others.join(" and "));
        (none && !others.is_empty()).then(say)
    }
}

/// Takes a snapshot.
pub fn cluster(path: &Path, keys: &Keys) -> anyhow::Result<Cluster> {
    let mut ledgers: BTreeMap<NodeName, NodeLedger> = BTreeMap::new();
    let mut survey = Survey::default();
    let mut others = BTreeSet::new();
    each(path, |item, _| {
        match item {
            Item::Node(node) => {
                others.extend(k8s::offered_elsewhere(&node, keys).map(str::to_owned));
                if let Some(view) = k8s::node(&node, keys) {
                    survey.allocatable(&view.name, k8s::allocatable(&node));
                    view.tell(ledgers.entry(view.name.clone()).or_default());
                }
            }
            Item::Pod(pod) => {
                let Some(view) = k8s::pod(&pod, keys).filter(|view| !view.ended) else { return Ok(()) };
                let amount = k8s::requested(&pod);
                let shape = Shape::of(view.demand(), amount.cpu, amount.memory);
                let resident = k8s::resident(&pod);
                survey.seen(&view.uid, &Sighting { shape: &shape, node: view.node.as_ref(), resident });
                if let (Some(node), Some(_)) = (&view.node, k8s::held_elsewhere(&pod, keys)) {
                    ledgers.entry(node.clone()).or_default().foreign_begins(&view.uid);
                }
                if let Some(holding) = &view.holding {
                    let ledger = ledgers.entry(holding.node.clone()).or_default();
                    ledger.observe(&view.uid, &view.pod, &holding.request, holding.held(), view.confirmed, 0);
                }
            }
        }
        Ok(())
    })?;
    ensure!(!ledgers.is_empty(), "{}: holds no node", path.display());
    for (name, ledger) in &ledgers {
        survey.cards(name, ledger);
    }
    Ok(Cluster { ledgers, survey, others })
}
