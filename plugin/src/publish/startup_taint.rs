//! Takes the startup taint (`<D>/gpu-starting`) off the Node once pods can be placed on its GPUs.
//!
//! kubelet registers a new Node with it (`--register-with-taints`), so that pods without GPUs do not fill the node before,
//! and an autoscaler does not take a Node without its GPUs for all that there will be.
//!
//! ```text
//!   a Node with the taint
//!     |  kubelet has registered every resource of this plugin, and
//!     |  the Node offers them (allocatable), and shows the inventory, by which the extender places pods
//!     v
//!   read once more and judged again -> one write, which the API server refuses where the Node has changed since
//! ```
//!
//! So a taint that another client adds or removes meanwhile is not lost, and a Node that is no longer as it was judged
//! keeps the taint. A write without an answer may have been done: the Node is read again, and one without the taint is
//! left alone. Whoever puts the taint on a Node later sees it removed likewise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kerf::annotation::{Keys, inventory};
use kerf_runtime::feed::Feed;
use kerf_runtime::readiness::Condition;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Cluster, ClusterError, NodeShown};
use crate::base::backoff::Backoff;
use crate::base::level_triggered::{self, Next, Publisher};
use crate::publish::node_view::NodeView;
use crate::roster::Roster;
use crate::state::State;

/// How often the Node is read while it cannot be watched.
const REVIEW: Duration = Duration::from_secs(60);
/// The same while it was last seen with the taint.
const STARTING: Duration = Duration::from_secs(5);

/// Why the Node still has the taint; nothing where it has not. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Obstacle(Arc<Mutex<Option<String>>>);

impl Obstacle {
    pub fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }

    fn set(&self, obstacle: Option<String>) {
        *self.0.lock() = obstacle;
    }
}

/// What this plugin has to offer before pods may come.
pub struct Offering {
    /// Met while kubelet has registered the plugin's resources.
    pub registered: Vec<Condition>,
    /// Whether `vcuda` is offered.
    pub vcuda: bool,
}

/// Removes the taint whenever the Node has it and nothing is missing, until `token` is cancelled. `feed`: the watch of
/// `node`.
pub async fn follow(
    cluster: Cluster,
    state: State,
    offering: Offering,
    obstacle: Obstacle,
    node: watch::Receiver<Option<NodeShown>>,
    feed: Feed,
    token: CancellationToken,
) {
    let view = NodeView::new(&state, node);
    let mut taint = StartupTaint { cluster, view, feed, offering, obstacle, awaited: None };
    level_triggered::follow(&mut taint, &token).await;
}

struct StartupTaint {
    cluster: Cluster,
    view: NodeView,
    feed: Feed,
    offering: Offering,
    obstacle: Obstacle,
    /// A registration that was missing when last judged.
    awaited: Option<Condition>,
}

impl Publisher for StartupTaint {
    type Error = ClusterError;

    async fn publish(&mut self) -> Result<Next, ClusterError> {
        self.awaited = self.offering.registered.iter().find(|condition| !condition.is_met()).cloned();
        let (roster, shown) = self.view.now();
        let own = Own::of(&roster, &self.offering, self.awaited.is_none(), self.cluster.keys());
        // without an open watch the Node is asked for as soon as only it decides; the answer is judged again in any case
        let obstacle = match shown.filter(|_| self.feed.lost().is_none() || !own.complete()) {
            Some(NodeShown { starting: None, .. }) => None,
            Some(NodeShown { starting: Some(offered), inventory, .. }) => match own.lack(inventory, &offered) {
                None => self.remove(&own).await?,
                lack => lack,
            },
            None if own.complete() => self.remove(&own).await?,
            None => None,
        };
        let wait = if obstacle.is_some() { STARTING } else { REVIEW };
        self.obstacle.set(obstacle);
        Ok(Next::within(wait))
    }

    async fn changed(&mut self) -> bool {
        let awaited = self.awaited.clone();
        let registered = async {
            match awaited {
                Some(condition) => condition.met().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.view.changed() => changed,
            () = registered => true,
        }
    }

    fn failed(&mut self, error: &ClusterError, new: bool, backoff: &mut Backoff) -> Next {
        let wait = backoff.failed();
        let next = Next { quiet: wait, most: Some(wait) };
        if error.conflict() {
            // the Node was changed between reading and writing: usual on a node that starts
            return next;
        }
        self.cluster.failed("node");
        let taint = &self.cluster.keys().starting;
        let hint = if error.refused() { "; see manifests/components/startup-taint" } else { "" };
        self.obstacle.set(Some(format!("{taint} cannot be removed: {error}{hint}")));
        if new {
            tracing::warn!(taint, %error, "startup taint not removed; trying again{hint}");
        }
        next
    }
}

impl StartupTaint {
    /// Removes the taint from the Node as it is now. Returns what it lacks, if anything.
    async fn remove(&self, own: &Own) -> Result<Option<String>, ClusterError> {
        let Some(starting) = self.cluster.starting().await? else { return Ok(None) };
        if let Some(lack) = own.lack(starting.inventory.clone(), &starting.offered) {
            return Ok(Some(lack));
        }
        self.cluster.remove_startup_taint(&starting).await?;
        tracing::info!(taint = self.cluster.keys().starting, "startup taint removed: pods may come");
        Ok(None)
    }
}

/// What the Node must show.
struct Own {
    /// Whether kubelet has registered every resource.
    registered: bool,
    /// `None` while the GPUs are not known, or there are none.
    inventory: Option<String>,
    resources: BTreeSet<String>,
}

impl Own {
    fn of(roster: &Roster, offering: &Offering, registered: bool, keys: &Keys) -> Self {
        let counted =
            roster.hosts().flat_map(|host| host.device.offers.keys()).map(|name| name.as_str().to_owned());
        let vcuda = [&keys.core, &keys.memory].into_iter().filter(|_| offering.vcuda).cloned();
        let resources = counted.chain(vcuda).collect();
        let inventory = roster.has_gpus().then(|| inventory::encode(&roster.inventory()));
        Self { registered, inventory, resources }
    }

    /// Whether nothing of the plugin's own is missing.
    fn complete(&self) -> bool {
        self.registered && self.inventory.is_some()
    }

    /// What is missing before pods may come to a Node that shows this inventory and offers these resources.
    fn lack(&self, inventory: Option<String>, offered: &BTreeSet<String>) -> Option<String> {
        if !self.registered {
            return Some("kubelet has not registered every resource".to_owned());
        }
        if self.inventory.is_none() {
            return Some("the GPUs are not known".to_owned());
        }
        let missing: Vec<&str> = self.resources.difference(offered).map(String::as_str).collect();
        if !missing.is_empty() {
            return Some(format!("the Node does not offer {}", missing.join(", ")));
        }
        (self.inventory != inventory).then(|| "the Node does not show the inventory".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_missing_is_named() {
        let own = |registered, inventory: Option<&str>| Own {
            registered,
            inventory: inventory.map(str::to_owned),
            resources: set(&["d/core", "d/memory"]),
        };
        let lack = |own: Own, offered: &[&str]| own.lack(Some("i".to_owned()), &set(offered)).unwrap_or_default();
        assert_eq!(lack(own(false, Some("i")), &[]), "kubelet has not registered every resource");
        assert_eq!(lack(own(true, None), &[]), "the GPUs are not known");
        assert_eq!(lack(own(true, Some("i")), &["d/core", "x"]), "the Node does not offer d/memory");
        assert_eq!(lack(own(true, Some("j")), &["d/core", "d/memory"]), "the Node does not show the inventory");
        assert_eq!(lack(own(true, Some("i")), &["d/core", "d/memory", "x"]), "");
    }

    proptest! {
        /// Pods may come only where everything holds at once.
        #[test]
        fn nothing_is_missing_only_where_everything_holds(
            registered in any::<bool>(),
            own in prop::option::of("[ab]"),
            shown in prop::option::of("[ab]"),
            resources in proptest::collection::btree_set("[a-c]", 0..3),
            offered in proptest::collection::btree_set("[a-c]", 0..4),
        ) {
            let holds = registered && own.is_some() && own == shown && resources.is_subset(&offered);
            let judged = Own { registered, inventory: own, resources };
            prop_assert_eq!(judged.lack(shown, &offered).is_none(), holds);
        }
    }
}
