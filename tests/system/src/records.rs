//! The part of an audit that depends on the pods' records only.

use std::collections::BTreeMap;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Node;
use kerf::annotation::{Keys, Record};
use kerf::ids::NodeName;
use kerf::k8s::{self, PodView};
use kerf::plan::Placement;
use kerf::units::Share;

/// The result of an audit.
#[derive(Debug, Default)]
pub struct Audit {
    /// Bound pods that have not ended, by name, with their placements.
    pub placed: BTreeMap<String, Placement>,
    /// Names of pods without a node.
    pub waiting: Vec<String>,
    /// Everything on which two parties do not agree.
    pub disagreements: Vec<String>,
    /// In use on each GPU, as `node/card`.
    pub used: BTreeMap<String, Share>,
}

impl Audit {
    /// Adds a disagreement.
    pub fn object(&mut self, text: String) {
        self.disagreements.push(text);
    }

    /// The node of a bound pod that has not ended, and the placement in its record. A record that is not
    /// readable, names another node or is not confirmed is a disagreement.
    pub fn placement(&mut self, pod: PodView) -> Option<(NodeName, Placement)> {
        let name = pod.pod.to_string();
        if pod.ended {
            return None;
        }
        let Some(node) = pod.node else {
            self.waiting.push(name);
            return None;
        };
        let Record::Placed(placement) = pod.record else {
            self.object(format!("{name}: bound to {node} without a readable placement: {:?}", pod.record));
            return None;
        };
        if placement.node != node {
            self.object(format!("{name}: bound to {node}, placed on {}", placement.node));
        }
        if !pod.confirmed {
            self.object(format!("{name}: not confirmed by its node"));
        }
        Some((node, placement))
    }

    /// Adds a pod's placement to the usage.
    pub fn count(&mut self, name: String, node: &NodeName, placement: Placement) {
        for hold in placement.plan.holds() {
            let used = self.used.entry(format!("{node}/{}", hold.device.id)).or_default();
            *used = used.saturating_add(hold.taken.share());
        }
        self.placed.insert(name, placement);
    }

    /// Checks that no GPU of a node holds more than it has. Call it after all pods were counted.
    pub fn capacity(&mut self, node: &Node, keys: &Keys) {
        let Some(view) = k8s::node(node, keys) else { return };
        for device in view.inventory.iter().flat_map(|inventory| inventory.devices()) {
            let card = format!("{}/{}", view.name, device.id);
            let used = self.used.get(&card).copied().unwrap_or_default();
            if !used.fits_in(device.capacity()) {
                self.object(format!("{card}: over-committed, {used:?} of {:?}", device.capacity()));
            }
        }
    }

    /// Fails if there are disagreements.
    ///
    /// # Errors
    /// Lists all disagreements, where there are any.
    pub fn agreed(self) -> anyhow::Result<Self> {
        ensure!(self.disagreements.is_empty(), "{}", self.disagreements.join("\n"));
        Ok(self)
    }
}
