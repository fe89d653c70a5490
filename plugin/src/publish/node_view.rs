//! The two things that are compared for the Node: this node's GPUs, and what the Node shows of them.

use std::sync::Arc;

use tokio::sync::watch;

use crate::api::NodeShown;
use crate::roster::Roster;
use crate::state::State;

pub struct NodeView {
    roster: watch::Receiver<Arc<Roster>>,
    node: watch::Receiver<Option<NodeShown>>,
}

impl NodeView {
    pub fn new(state: &State, node: watch::Receiver<Option<NodeShown>>) -> Self {
        Self { roster: state.watch_roster(), node }
    }

    /// Both as they are now; [`NodeView::changed`] waits for what is newer. `None`: the Node was not seen.
    pub fn now(&mut self) -> (Arc<Roster>, Option<NodeShown>) {
        (self.roster.borrow_and_update().clone(), self.node.borrow_and_update().clone())
    }

    /// Waits until one of them is another; `false`: neither will be again.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.roster.changed() => changed.is_ok(),
            changed = self.node.changed() => changed.is_ok(),
        }
    }
}
