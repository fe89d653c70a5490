//! An API server that keeps nodes, pods, events and leases in memory and speaks the real HTTP protocol.
//!
//! Served as the real one serves them: list with `limit`/`continue`, watch with history, bookmarks, 410 and
//! selector transitions, get, create, update, merge and strategic merge patch, the `status` subresources,
//! `pods/binding` with its preconditions, graceful deletion of pods, `Status` errors.
//!
//! Absent on purpose: authentication, admission, validation beyond what is named above, defaults, server-side
//! Absent on purpose: authentication, admission, validation beyond what is named above, defaults, server-side

pub(crate) mod binding;
mod call;
mod connection;
mod failure;
mod fault;
pub(crate) mod lag;
pub(crate) mod object;
mod patch;
mod reading;
mod resource;
mod selector;
mod server;
mod shared;
mod store;
mod tally;
mod watching;
mod writing;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use fault::{Action, Fault, Injected};
pub use lag::Watchers;
pub use shared::ApiConfig;
pub use tally::{Counts, Write};

use connection::{Connections, Frozen, Switch};
use object::Key;
use patch::Flavour;
use resource::Resource;
use shared::Inner;

/// A running API server stand-in; dropping it stops it.
#[derive(Debug)]
pub struct ApiServer {
    inner: Arc<Inner>,
    address: SocketAddr,
    frozen: Frozen,
    server: Mutex<Option<JoinHandle<()>>>,
}

impl ApiServer {
    /// Starts an empty API server on a free port of the loopback interface.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(ApiConfig::default()).await
    }

    /// Like [`start`](Self::start), with other limits.
    pub async fn start_with(config: ApiConfig) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen on loopback")?;
        let address = listener.local_addr()?;
        let inner = Arc::new(Inner::new(config));
        let app = Router::new()
            .fallback(server::serve)
            .with_state(inner.clone())
            .into_make_service_with_connect_info::<Switch>();
        let frozen = Frozen::default();
        let connections = Connections::new(listener, frozen.clone());
        let closing = inner.closing.clone();
        let server = tokio::spawn(async move {
            let serving = axum::serve(connections, app).with_graceful_shutdown(closing.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::error!(%error, "API server stand-in failed");
            }
        });
        Ok(Self { inner, address, frozen, server: Mutex::new(Some(server)) })
    }

    /// The base URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a kubeconfig for programs that take one.
    pub fn write_kubeconfig(&self, path: impl AsRef<Path>) -> anyhow::Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "testkit", "cluster": { "server": self.url() } }],
            "users": [{ "name": "testkit", "user": {} }],
            "contexts": [{ "name": "testkit", "context": { "cluster": "testkit", "user": "testkit" } }],
            "current-context": "testkit",
        });
        // JSON is YAML.
        std::fs::write(path.as_ref(), config.to_string())
            .with_context(|| format!("write {}", path.as_ref().display()))
    }

    /// Ends all watches and connections and waits until they are gone.
    pub async fn shutdown(&self) {
        self.inner.closing.cancel();
        self.inner.faults.clear();
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(server) = server {
            let _ended = tokio::time::timeout(Duration::from_secs(5), server).await;
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.inner.closing.cancel();
        self.inner.faults.clear();
    }
}

/// Direct access to objects, without HTTP: no fault applies and nothing is counted.
impl ApiServer {
    /// Stores an object as given, status included, and fills in missing metadata.
    pub fn create(&self, resource: &str, object: Value) -> anyhow::Result<Arc<Value>> {
        let resource = parse(resource)?;
        let object = self.inner.change(resource, |store| store.create(resource, None, object))?;
        Ok(object.value)
    }

    /// One object; the namespace of a cluster-scoped kind is empty.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> anyhow::Result<Arc<Value>> {
        let object = self.inner.store().get(parse(resource)?, &key(namespace, name))?;
        Ok(object.value)
    }

    /// All objects of a kind by namespace and name.
    pub fn list(&self, resource: &str) -> anyhow::Result<Vec<Arc<Value>>> {
        let resource = parse(resource)?;
        let mut store = self.inner.store();
        let objects = store.shelf(resource).objects.values();
        Ok(objects.map(|object| object.value.clone()).collect())
    }

    /// Deletes an object as a client would without options: a pod on a node is only marked.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> anyhow::Result<()> {
        self.remove(resource, namespace, name, &json!({}))
    }

    /// Removes an object at once.
    pub fn force_delete(&self, resource: &str, namespace: &str, name: &str) -> anyhow::Result<()> {
        self.remove(resource, namespace, name, &json!({ "gracePeriodSeconds": 0 }))
    }

    fn remove(&self, resource: &str, namespace: &str, name: &str, options: &Value) -> anyhow::Result<()> {
        let resource = parse(resource)?;
        let key = key(namespace, name);
        self.inner.change(resource, |store| writing::remove(store, resource, &key, options))?;
        Ok(())
    }

    /// Merges into an object, spec and status alike; even fields that no client may change.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: &Value) -> anyhow::Result<Arc<Value>> {
        let resource = parse(resource)?;
        let key = key(namespace, name);
        let object = self.inner.change(resource, |store| {
            store.edit(resource, &key, |old| {
                let mut new = old.clone();
                patch::apply(Flavour::Strategic, &mut new, patch);
                Ok(new)
            })
        })?;
        Ok(object.value)
    }

    /// Merges into the status of an object: `patch_status("pods", "ns", "a", json!({"phase": "Running"}))`.
    pub fn patch_status(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        status: Value,
    ) -> anyhow::Result<Arc<Value>> {
        self.patch(resource, namespace, name, &json!({ "status": status }))
    }

    /// What a pod answers at this path through the API server's proxy, from now on.
    pub fn answer_proxy(&self, namespace: &str, pod: &str, port: u16, path: &str, text: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}");
        self.inner.proxied.lock().unwrap_or_else(PoisonError::into_inner).insert(path, text.to_owned());
    }

    /// Binds a pod as the default binder would.
    pub fn bind(&self, namespace: &str, pod: &str, node: &str) -> anyhow::Result<Arc<Value>> {
        let key = key(namespace, pod);
        let binding = json!({ "target": { "kind": "Node", "name": node } });
        let object = self
            .inner
            .change(Resource::Pods, |store| store.edit(Resource::Pods, &key, |pod| binding::bind(pod, &binding)))?;
        Ok(object.value)
    }

    /// The newest resourceVersion of all; changes with every write.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.any_change.subscribe()
    }

    /// Waits until `look`, called on all objects of a kind after every change, returns a value.
    pub async fn wait_for<T>(
        &self,
        resource: &str,
        timeout: Duration,
        mut look: impl FnMut(&[Arc<Value>]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let kind = parse(resource)?;
        let mut changes = self.inner.changes(kind);
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            changes.borrow_and_update();
            let objects = self.list(resource)?;
            if let Some(answer) = look(&objects) {
                return Ok(answer);
            }
            if let Ok(changed) = tokio::time::timeout_at(deadline, changes.changed()).await {
                changed.context("the API server is gone")?;
            } else {
                bail!("not seen in {timeout:?} among these {resource}:{}", summary(&objects));
            }
        }
    }

    /// Waits until one object satisfies `wanted`, which gets `None` while the object does not exist.
    pub async fn wait_for_object(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        timeout: Duration,
        mut wanted: impl FnMut(Option<&Value>) -> bool,
    ) -> anyhow::Result<Option<Arc<Value>>> {
        self.wait_for(resource, timeout, |objects| {
            let found = objects
                .iter()
                .find(|object| object::name(object) == name && object::namespace(object) == namespace);
            wanted(found.map(AsRef::as_ref)).then(|| found.cloned())
        })
        .await
        .with_context(|| format!("waiting for {resource} \"{namespace}/{name}\""))
    }
}

/// Faults, lag, counts and logs.
impl ApiServer {
    /// Makes requests fail or wait.
    pub fn inject(&self, fault: Fault) -> Injected {
        self.inner.faults.inject(fault)
    }

    /// Removes all faults; held requests go on.
    pub fn clear_faults(&self) {
        self.inner.faults.clear();
    }

    /// Sets the version (`gitVersion`) that it reports from now on.
    pub fn set_version(&self, version: &str) {
        version.clone_into(&mut self.inner.version.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Parks all requests that come from now on; open watches go on.
    pub fn pause(&self) {
        self.inner.paused.send_replace(true);
    }

    /// Lets parked requests go on.
    pub fn resume(&self) {
        self.inner.paused.send_replace(false);
    }

    /// Ends all open watches as a restart of the API server would.
    pub fn break_watches(&self) {
        self.inner.breaks.send_modify(|epoch| *epoch += 1);
    }

    /// Makes all watches send neither changes nor bookmarks until this is called with `false`; they stay open.
    pub fn silence_watches(&self, silent: bool) {
        self.inner.silent.send_replace(silent);
    }

    /// Makes the connections that are open now carry nothing any more, in either direction, as if the network had
    /// lost them; they are not closed. New connections are normal.
    pub fn freeze_connections(&self) {
        self.frozen.freeze();
    }

    /// Forgets the past: lists and watches cannot start from any version before now.
    pub fn compact(&self) {
        self.inner.store().compact();
    }

    /// Makes watches see every change this much later; zero ends it.
    pub fn delay_watch(&self, watchers: Watchers, by: Duration) {
        self.inner.lag.delay(watchers, by);
    }

    /// Hides changes of a kind from watches until [`release_watch`](Self::release_watch).
    pub fn hold_watch(&self, resource: &str, watchers: Watchers) -> anyhow::Result<()> {
        let resource = parse(resource)?;
        let rv = self.inner.store().rv();
        self.inner.lag.hold(resource, watchers, rv);
        Ok(())
    }

    /// Shows watches the changes that were held back.
    pub fn release_watch(&self, resource: &str) -> anyhow::Result<()> {
        self.inner.lag.release(parse(resource)?);
        Ok(())
    }

    /// Write requests per verb and resource, such as `("create", "pods/binding")`; refused ones count too.
    pub fn writes(&self) -> Counts {
        self.inner.tally.writes()
    }

    /// The write requests in the order in which they ended; concurrent ones in no fixed order.
    pub fn write_log(&self) -> Vec<Write> {
        self.inner.tally.log()
    }

    /// All requests per verb and resource, reads included.
    pub fn requests(&self) -> Counts {
        self.inner.tally.requests()
    }
}

fn parse(resource: &str) -> anyhow::Result<Resource> {
    Resource::parse(resource).with_context(|| format!("no such kind here: \"{resource}\""))
}

fn key(namespace: &str, name: &str) -> Key {
    (namespace.to_owned(), name.to_owned())
}

fn summary(objects: &[Arc<Value>]) -> String {
    let mut out = String::new();
    for object in objects.iter().take(30) {
        let _infallible = write!(
            out,
            "\n  {}/{} phase={:?} node={:?} deleting={} annotations={} message={:?}",
            object::namespace(object),
            object::name(object),
            object::phase(object),
            object::node_name(object),
            object::is_deleting(object),
            object::at(object, &["metadata", "annotations"]).unwrap_or(&Value::Null),
            object::text(object, &["status", "message"]),
        );
    }
    if objects.len() > 30 {
        let _infallible = write!(out, "\n  … and {} more", objects.len() - 30);
    }
    out
}
