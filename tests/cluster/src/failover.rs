//! Faults of the leader of kerf's schedulers, and how long no pod is bound because of them.

use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::bundled::Member;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::tools::output;

/// What happens to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its extender ends by SIGKILL.
    ExtenderKilled,
    /// Its kube-scheduler ends by SIGKILL.
    SchedulerKilled,
    /// Its pod is deleted, and ends in an orderly way.
    PodDeleted,
    /// Its node reaches nobody: the pods' interfaces are down and kubelet is stopped, while all containers run on.
    NodeCut,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ExtenderKilled, Self::SchedulerKilled, Self::PodDeleted, Self::NodeCut];

    /// A few words about it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExtenderKilled => "extender killed",
            Self::SchedulerKilled => "scheduler killed",
            Self::PodDeleted => "pod deleted",
            Self::NodeCut => "node cut off",
        }
    }

    /// How long it may take at most until pods are bound again.
    pub fn limit(self) -> Duration {
        match self {
            Self::PodDeleted => Duration::from_secs(3),
            _ => Duration::from_secs(15),
        }
    }

    /// Lets it happen to `leader`. It lasts until the value is dropped.
    ///
    /// # Errors
    /// Where the leader is gone already.
    pub async fn strike<'a>(self, cluster: &'a Cluster, leader: &Member) -> anyhow::Result<Struck<'a>> {
        let node = cluster.node(&leader.node)?;
        let mut struck = Struck::default();
        match self {
            Self::ExtenderKilled => leader.process(node, "extender")?.signal(Signal::KILL),
            Self::SchedulerKilled => leader.process(node, "kube-scheduler")?.signal(Signal::KILL),
            Self::PodDeleted => {
                let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "kerf-system");
                pods.delete(&leader.name, &DeleteParams::default()).await?;
            }
            Self::NodeCut => struck.cut(node)?,
        }
        Ok(struck)
    }
}

/// What a fault has changed.
#[derive(Debug, Default)]
pub struct Struck<'a> {
    stopped: Option<&'a Node>,
    /// The routes to the node's pods, as they were.
    routes: Vec<String>,
}

impl<'a> Struck<'a> {
    fn cut(&mut self, node: &'a Node) -> anyhow::Result<()> {
        node.kubelet.signal(Signal::STOP)?;
        self.stopped = Some(node);
        let routes = output(&mut ip("route show"))?;
        let prefix = node.pods().rsplit_once(".0/").context("no network")?.0.to_owned() + ".";
        self.routes = routes.lines().filter(|line| line.starts_with(&prefix)).map(str::to_owned).collect();
        ensure!(!self.routes.is_empty(), "{} has no pods:\n{routes}", node.name);
        // the routes vanish with it
        self.interfaces().try_for_each(|interface| output(&mut ip(&format!("link set {interface} down"))).map(drop))
    }

    fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().filter_map(|route| route.split(" dev ").nth(1)?.split_whitespace().next())
    }
}

impl Drop for Struck<'_> {
    fn drop(&mut self) {
        for interface in self.interfaces() {
            drop(output(&mut ip(&format!("link set {interface} up"))));
        }
        for route in &self.routes {
            drop(output(&mut ip(&format!("route replace {route}"))));
        }
        if let Some(node) = self.stopped {
            drop(node.kubelet.signal(Signal::CONT));
        }
    }
}

fn ip(args: &str) -> Command {
    let mut command = Command::new("busybox");
    command.arg("ip").args(args.split_whitespace());
    command
}

/// The moments at which the pods of a namespace are seen bound.
#[derive(Debug)]
pub struct Bindings {
    moments: watch::Receiver<Vec<Instant>>,
    following: JoinHandle<()>,
}

impl Bindings {
    /// Follows the pods of a namespace.
    pub fn follow(client: Client, namespace: &str) -> Self {
        let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(client, namespace);
        let (sender, moments) = watch::channel(Vec::new());
        let following = tokio::spawn(async move {
            let selection = Config::default().fields("spec.nodeName!=");
            let mut events = std::pin::pin!(watcher(pods, selection).default_backoff());
            let mut names = HashSet::new();
            // a watch that ended is resumed
            while let Some(event) = events.next().await {
                if let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event
                    && names.insert(pod.name_any())
                {
                    sender.send_modify(|moments| moments.push(Instant::now()));
                }
            }
        });
        Self { moments, following }
    }

    /// Waits until so many are bound; returns the moments so far.
    ///
    /// # Errors
    /// Where there are not within `limit`.
    pub async fn reach(&mut self, count: usize, limit: Duration) -> anyhow::Result<Vec<Instant>> {
        let now = self.moments.clone();
        let reached = self.moments.wait_for(|moments| moments.len() >= count);
        match tokio::time::timeout(limit, reached).await {
            Ok(reached) => Ok(reached.context("nobody follows")?.clone()),
            Err(_) => bail!("{} of {count} are bound after {limit:?}", now.borrow().len()),
        }
    }
}

impl Drop for Bindings {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// What a fault during a burst of pods has led to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// How many pods were bound before it.
    pub before: usize,
    /// How long no pod was bound because of it: see [`resumed`].
    pub resumed: Duration,
    /// How long after it all pods were bound.
    pub all: Duration,
}

/// Creates pods at once, and lets a fault happen to the leader when a quarter of them is bound. Returns when all are bound
/// and the fault is over.
///
/// # Errors
/// Where not all are bound within `limit`, or too many were before the fault.
pub async fn burst(
    cluster: &Cluster,
    namespace: &str,
    pods: Vec<Value>,
    fault: Fault,
    limit: Duration,
) -> anyhow::Result<Outcome> {
    let count = pods.len();
    let leader = cluster.pods()?.leader().await?;
    let mut bindings = Bindings::follow(cluster.client.clone(), namespace);
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let creating: JoinSet<anyhow::Result<()>> = pods
        .into_iter()
        .map(|pod| {
            let api = api.clone();
            async move { Ok(api.create(&PostParams::default(), &serde_json::from_value(pod)?).await.map(drop)?) }
        })
        .collect();
    bindings.reach(count / 4, limit).await?;
    let at = Instant::now();
    let struck = fault.strike(cluster, &leader).await?;
    creating.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
    let moments = bindings.reach(count, limit).await?;
    drop(struck);
    let before = moments.iter().filter(|moment| **moment <= at).count();
    let last = moments.iter().max().context("none is bound")?;
    let resumed = resumed(at, &moments).context("all were bound before the fault")?;
    Ok(Outcome { before, resumed, all: last.duration_since(at) })
}

/// How long after a fault pods were bound again: from it to the end of the longest time without a binding since then. What
/// was asked for before the fault may still be written just after it, so the first binding does not count.
pub fn resumed(fault: Instant, bindings: &[Instant]) -> Option<Duration> {
    let after: Vec<Instant> =
        std::iter::once(fault).chain(bindings.iter().copied().filter(|at| *at > fault)).collect();
    let gaps = after.iter().zip(after.iter().skip(1));
    gaps.max_by_key(|(from, to)| to.duration_since(**from)).map(|(_, to)| to.duration_since(fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_under_way_does_not_count() {
        let fault = Instant::now();
        let at =
            |millis: &[u64]| millis.iter().map(|millis| fault + Duration::from_millis(*millis)).collect::<Vec<_>>();
        assert_eq!(resumed(fault, &at(&[5, 30, 9_000, 9_010, 9_500])), Some(Duration::from_secs(9)));
        assert_eq!(resumed(fault, &at(&[400, 410])), Some(Duration::from_millis(400)));
        assert_eq!(resumed(fault, &[fault]), None);
    }
}
