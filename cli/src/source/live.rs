//! A running cluster, through the API server. Only reads.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;
use futures::StreamExt;
use kube::api::ListParams;
use kube::core::Request;
use serde::Deserialize;

use super::connect::Connection;
use super::metrics;
use super::objects::{self, Item};
use super::refused::Refused;
use crate::cluster::{Cluster, Plugin};
use crate::view::Usage;

/// Objects in one answer: the API server's own client asks for as many.
const PAGE: u32 = 500;
/// Plugins that are asked at the same time.
const AT_ONCE: usize = 16;

/// A cluster and who asks.
pub struct Live {
    connection: Connection,
    namespace: Option<String>,
    kerf_namespace: String,
    /// Whether lists may be as old as the API server's memory of them, which costs it less.
    cached: AtomicBool,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
}

#[derive(Default, Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

impl Live {
    pub fn new(connection: Connection, namespace: Option<String>, kerf_namespace: String) -> Self {
        Self { connection, namespace, kerf_namespace, cached: AtomicBool::new(false) }
    }

    pub fn name(&self) -> &str {
        &self.connection.server
    }

    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_else(|| self.connection.client.default_namespace())
    }

    /// From now on, lists are those that the API server has in memory: for whoever reads again and again.
    pub fn read_again(&self) {
        self.cached.store(true, Ordering::Relaxed);
    }

    /// Calls `visit` with each node and pod of the cluster, and the lease of kerf's scheduler where it may be read.
    pub fn each(&self, visit: &mut dyn FnMut(Item, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.kerf_namespace);
        let (nodes, pods, leases) = self.connection.runtime.block_on(async {
            tokio::join!(self.pages("/api/v1/nodes"), self.pages("/api/v1/pods"), self.pages(&lease))
        });
        let lists = match (nodes, pods) {
            (Ok(nodes), Ok(pods)) => [nodes, pods],
            (nodes, pods) => return Err(self.refusal(nodes.err(), pods.err())),
        };
        let name = self.name();
        for text in lists.iter().flatten().chain(&leases.unwrap_or_default()) {
            objects::each(text, name, visit)?;
        }
        Ok(())
    }

    /// Everything that keeps the lists away, at once.
    fn refusal(&self, nodes: Option<Refused>, pods: Option<Refused>) -> anyhow::Error {
        let name = self.name();
        match (nodes, pods) {
            (Some(Refused::Forbidden(nodes)), Some(Refused::Forbidden(pods))) => {
                let both = Refused::Forbidden(format!("{nodes}; {pods}"));
                anyhow!(both.sentence(name, "list nodes, nor pods of all namespaces"))
            }
            (Some(nodes), _) => anyhow!(nodes.sentence(name, "list nodes")),
            (None, Some(pods)) => anyhow!(pods.sentence(name, "list pods of all namespaces")),
            (None, None) => anyhow!("{name}: nothing was asked"),
        }
    }

    /// A whole list, in pages.
    async fn pages(&self, path: &str) -> Result<Vec<String>, Refused> {
        let params = ListParams::default();
        let params = if self.cached.load(Ordering::Relaxed) { params.match_any() } else { params.limit(PAGE) };
        match self.all(path, params).await {
            // the first page is too old by now: all at once is never
            Err(Refused::Expired) => self.all(path, ListParams::default()).await,
            done => done,
        }
    }

    async fn all(&self, path: &str, mut params: ListParams) -> Result<Vec<String>, Refused> {
        let mut pages = Vec::new();
        loop {
            let request =
                Request::new(path).list(&params).map_err(|error| Refused::Unreachable(error.to_string()))?;
            let text = self.text(request).await?;
            let next = serde_json::from_str::<List>(&text).ok().and_then(|list| list.metadata.next);
            pages.push(text);
            match next.filter(|next| !next.is_empty()) {
                Some(next) => params.continue_token = Some(next),
                None => return Ok(pages),
            }
        }
    }

    async fn text(&self, request: http::Request<Vec<u8>>) -> Result<String, Refused> {
        let Connection { client, limit, .. } = &self.connection;
        match tokio::time::timeout(*limit, client.request_text(request)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Refused::Silent(*limit)),
        }
    }

    /// What GPUs and containers use, from the metrics of kerf's plugins, through the API server's proxy.
    pub fn usage(&self, cluster: &Cluster) -> Usage {
        let own = |plugin: &&Plugin| plugin.namespace == self.kerf_namespace;
        let plugins: Vec<&Plugin> = cluster.plugins.iter().filter(own).collect();
        let mut usage =
            Usage::unknown(format!("no plugin of kerf runs there in namespace {}", self.kerf_namespace));
        let asked =
            futures::stream::iter(plugins).map(|plugin| async move { (plugin, self.metrics(plugin).await) });
        self.connection.runtime.block_on(asked.buffer_unordered(AT_ONCE).for_each(|(plugin, answer)| {
            match answer {
                Ok(text) => {
                    metrics::add(&mut usage, &plugin.node, &text);
                    usage.unknown.insert(plugin.node.clone(), "its driver does not tell kerf's plugin".to_owned());
                }
                Err(refused) => drop(usage.unknown.insert(plugin.node.clone(), refused.words())),
            }
            std::future::ready(())
        }));
        usage
    }

    async fn metrics(&self, plugin: &Plugin) -> Result<String, Refused> {
        let Plugin { namespace, name, port, .. } = plugin;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
        let request = http::Request::get(path).body(Vec::new());
        self.text(request.map_err(|error| Refused::Unreachable(error.to_string()))?).await
    }
}
