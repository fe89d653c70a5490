//! A cluster as `kubectl get nodes,pods -A -o json` prints it: as ledgers, and as a workload.

mod past;
mod reading;

use std::collections::BTreeMap;
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

/// Every node's ledger, with the pods that are bound and have not ended, and the survey that an extender would have
/// after seeing the same objects.
pub fn cluster(path: &Path, keys: &Keys) -> anyhow::Result<(BTreeMap<NodeName, NodeLedger>, Survey)> {
    let mut ledgers: BTreeMap<NodeName, NodeLedger> = BTreeMap::new();
    let mut survey = Survey::default();
    each(path, |item, _| {
        match item {
            Item::Node(node) => {
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
    Ok((ledgers, survey))
}
