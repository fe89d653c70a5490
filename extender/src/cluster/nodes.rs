//! Events of the watch of Nodes.

use std::collections::BTreeSet;

use kerf::ids::NodeName;
use kerf::k8s::{NodeView, Taints};
use kerf::placement::shape::HostAmount;

use super::Cluster;
use crate::freed::News;

impl Cluster {
    /// A Node was created or changed.
    pub fn apply_node(&self, view: &NodeView) {
        let mut ledger = self.nodes.entry(view.name.clone()).or_default();
        if self.listed.contains(&view.name) {
            ledger.expect_list();
        }
        view.tell(&mut ledger);
        drop(ledger);
        self.mark(&view.name);
        self.freed.mark(&view.name, News::Told);
        self.notify();
    }

    /// `failing`: containers fail on the node because of the node itself.
    pub(crate) fn apply_failing(&self, node: &NodeName, failing: bool) {
        let news = if failing {
            self.failing.insert(node.clone())
        } else {
            !self.failing.is_empty() && self.failing.remove(node).is_some()
        };
        if news {
            tracing::info!(%node, failing, "containers fail on a node because of the node itself; it is tried last meanwhile");
        }
    }

    /// A Node's taints. To be called before [`Cluster::apply_node`], so that no pod sees the node open in between.
    pub(crate) fn apply_taints(&self, node: &NodeName, taints: Taints) {
        if taints.is_empty() {
            self.taints.remove(node);
        } else {
            self.taints.insert(node.clone(), taints);
        }
    }

    /// What a node has for pods, beside cards; `None` where it is not known.
    pub fn apply_allocatable(&self, node: &NodeName, amount: Option<HostAmount>) {
        self.survey.lock().allocatable(node, amount);
    }

    /// A Node was deleted. Its pods stay until they are released.
    pub(crate) fn delete_node(&self, name: &str) {
        if let Some(mut ledger) = self.nodes.get_mut(name) {
            if ledger.listed() {
                self.listed.add(ledger.key());
            }
            ledger.forget_node();
        }
        self.nodes.remove_if(name, |_, ledger| ledger.is_empty());
        self.queue.forget_node(name);
        self.taints.remove(name);
        self.failing.remove(name);
        self.survey.lock().forget(name);
        self.notify();
    }

    /// A complete list of Nodes has ended: Nodes that are not in `seen` are gone.
    pub(crate) fn retain_nodes(&self, seen: &BTreeSet<NodeName>) {
        let gone: Vec<NodeName> =
            self.nodes.iter().map(|entry| entry.key().clone()).filter(|name| !seen.contains(name)).collect();
        for name in gone {
            self.delete_node(name.as_str());
        }
    }
}
