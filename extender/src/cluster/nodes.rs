//! What the watch of Nodes says.

use std::collections::BTreeSet;

use kerf::ids::NodeName;
use kerf::k8s::NodeView;

use super::Cluster;
use crate::freed::News;

impl Cluster {
    /// A Node was seen.
    pub fn apply_node(&self, view: &NodeView) {
        let mut ledger = self.nodes.entry(view.name.clone()).or_default();
        if self.listed.contains(&view.name) {
            ledger.expect_list();
        }
        view.tell(&mut ledger);
        drop(ledger);
        self.surveyor.mark(&view.name);
        self.freed.mark(&view.name, News::Told);
        self.notify();
    }

    /// Whether containers fail on a node for reasons of its own.
    pub fn apply_failing(&self, node: &NodeName, failing: bool) {
        let news = if failing {
            self.failing.insert(node.clone())
        } else {
            !self.failing.is_empty() && self.failing.remove(node).is_some()
        };
        if news {
            tracing::info!(%node, failing, "containers fail on a node for reasons of its own: it is tried last while they do");
        }
    }

    /// Whether they do on any node.
    pub(crate) fn any_fails(&self) -> bool {
        !self.failing.is_empty()
    }

    /// Whether it is tried last.
    pub fn is_failing(&self, node: &str) -> bool {
        self.failing.contains(node)
    }

    /// A Node is gone. Its pods stay until they are released.
    pub fn delete_node(&self, name: &str) {
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
        self.surveyor.forget(name);
        self.notify();
    }

    /// A complete list of Nodes has ended: those that are not in it are gone.
    pub fn retain_nodes(&self, seen: &BTreeSet<NodeName>) {
        let gone: Vec<NodeName> =
            self.nodes.iter().map(|entry| entry.key().clone()).filter(|name| !seen.contains(name)).collect();
        for name in gone {
            self.delete_node(name.as_str());
        }
    }
}
