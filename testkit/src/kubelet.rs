//! A kubelet that speaks the device plugin and pod resources protocols over real sockets.
//!
//! Plugins register at its socket and are called as the real kubelet calls them; the pods that the API server
//! shows on its node are admitted one after the other, in the order of their bindings; what containers hold is
//! kept across restarts. Containers do not run: they are records of what they would have been given.
//!
//! Absent on purpose: cgroups, images, runtimes and processes, cpu and memory, probes, eviction, the topology
//! manager, the plugin-watcher registration, the checkpoint file, container status while a pod starts, the
//! grace period between deletion and end, dropping resources five minutes after their plugin has gone.

mod admission;
mod books;
mod call;
mod config;
mod container;
mod endpoint;
mod life;
mod node;
mod podresources;
mod pods;
mod registration;
mod shared;
mod starting;

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use kerf_proto::deviceplugin::registration_server::RegistrationServer;
use kerf_proto::podresources::pod_resources_lister_server::PodResourcesListerServer;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

pub use call::Call;
pub use config::KubeletConfig;
pub use container::{Conflict, Container, ContainerState};

use crate::api::object;
use crate::client::informer::follow;
use life::Life;
use shared::Shared;

/// How long a server may take to close its connections.
const LET_GO: Duration = Duration::from_millis(500);

/// A running kubelet; dropping it stops it.
#[derive(Debug)]
pub struct Kubelet {
    shared: Arc<Shared>,
    life: Mutex<Life>,
}

impl Kubelet {
    /// Starts a kubelet: its directories, its sockets, its Node object.
    pub async fn start(config: KubeletConfig) -> anyhow::Result<Self> {
        config.check()?;
        let kubelet = Self { shared: Arc::new(Shared::new(config)?), life: Mutex::default() };
        kubelet.begin().await?;
        Ok(kubelet)
    }

    /// The configuration that it was started with.
    pub fn config(&self) -> &KubeletConfig {
        &self.shared.config
    }

    /// The containers of all pods that were admitted and have not ended.
    pub fn containers(&self) -> Vec<Container> {
        let books = self.shared.books();
        books.pods.values().flat_map(|book| book.containers.clone()).collect()
    }

    /// One container, if its pod was admitted and has not ended.
    pub fn container(&self, namespace: &str, pod: &str, container: &str) -> Option<Container> {
        self.containers()
            .into_iter()
            .find(|found| found.namespace == namespace && found.pod == pod && found.name == container)
    }

    /// Everything that it did, in order, over all its runs.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls()
    }

    /// Capacity and allocatable by resource, as its node's status shows them or soon will.
    pub fn resources(&self) -> BTreeMap<String, (usize, usize)> {
        self.shared.books().amounts()
    }

    /// Waits until `look`, called on all containers after every change, returns a value.
    pub async fn wait_for<T>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&[Container]) -> Option<T>,
    ) -> anyhow::Result<T> {
        self.wait(timeout, || look(&self.containers()))
            .await
            .with_context(|| format!("containers: {:#?}", self.containers()))
    }

    /// Waits until the calls so far satisfy `look`.
    pub async fn wait_for_calls<T>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&[Call]) -> Option<T>,
    ) -> anyhow::Result<T> {
        self.wait(timeout, || look(&self.calls())).await.with_context(|| format!("calls: {:#?}", self.calls()))
    }

    /// Waits until plugins have listed devices of all these resources since kubelet's last start.
    pub async fn wait_registered(&self, resources: &[&str], timeout: Duration) -> anyhow::Result<()> {
        self.wait(timeout, || {
            let books = self.shared.books();
            resources.iter().all(|resource| books.is_listed(resource)).then_some(())
        })
        .await
        .with_context(|| format!("resources: {:?}", self.resources()))
    }

    async fn wait<T>(&self, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let mut changes = self.shared.changes();
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            changes.borrow_and_update();
            if let Some(found) = look() {
                return Ok(found);
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                bail!("not seen in {timeout:?} on node \"{}\"", self.shared.config.node);
            }
        }
    }

    /// Ends a pod's containers: its devices are free and its status says `phase` (`Succeeded` or `Failed`).
    pub async fn complete_pod(&self, namespace: &str, name: &str, phase: &str) -> anyhow::Result<()> {
        let pod = {
            let mut books = self.shared.books();
            let found = books
                .pods
                .iter()
                .find(|(_, book)| object::name(&book.pod) == name && object::namespace(&book.pod) == namespace);
            let uid = found.map(|(uid, _)| uid.clone());
            let book = uid.and_then(|uid| books.end(&uid));
            book.with_context(|| format!("pod \"{namespace}/{name}\" has no containers here"))?.pod
        };
        self.shared.touch();
        let finished = matches!(phase, "Succeeded" | "Failed");
        let conditions = ["Ready", "ContainersReady"]
            .map(|condition| json!({ "type": condition, "status": if finished { "False" } else { "True" } }));
        let status = json!({ "phase": phase, "conditions": conditions });
        self.shared.write_status(&pod, &status, || true).await;
        Ok(())
    }

    /// Restarts a container, as after a crash: `PreStartContainer` again, the old answers of Allocate.
    pub async fn restart_container(&self, namespace: &str, pod: &str, container: &str) -> anyhow::Result<()> {
        let found = self
            .shared
            .books()
            .pods
            .values()
            .find(|book| object::name(&book.pod) == pod && object::namespace(&book.pod) == namespace)
            .map(|book| book.pod.clone())
            .with_context(|| format!("pod \"{namespace}/{pod}\" has no containers here"))?;
        if starting::start_container(&self.shared, &found, container).await {
            return Ok(());
        }
        bail!("pod \"{namespace}/{pod}\" has ended")
    }

    /// Stops the program as a kill would: the files of its sockets stay, containers go on.
    pub async fn stop(&self) {
        let life = self.current();
        life.end().await;
    }

    /// Stops it if it runs and starts it again: all sockets in its plugin directory are removed, plugins have to
    /// register again, and devices of containers are remembered.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.stop().await;
        self.shared.books().restart();
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = Life::default();
        self.shared.touch();
        self.begin().await
    }

    /// Stops it permanently.
    pub async fn shutdown(self) {
        self.stop().await;
    }

    fn current(&self) -> Life {
        self.life.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn begin(&self) -> anyhow::Result<()> {
        let life = self.current();
        let config = &self.shared.config;
        remove_sockets(&config.device_plugins_dir)?;
        remove_sockets(&config.pod_resources_dir)?;
        let lister = PodResourcesListerServer::new(podresources::Lister(self.shared.clone()));
        serve(&life, &config.pod_resources_socket(), Server::builder().add_service(lister))?;
        let registrar =
            RegistrationServer::new(registration::Registrar { shared: self.shared.clone(), life: life.clone() });
        serve(&life, &config.registration_socket(), Server::builder().add_service(registrar))?;
        node::register(&self.shared).await?;
        life.spawn(node::follow(self.shared.clone()));
        let (tell, inbox) = mpsc::unbounded_channel();
        let fields = format!("spec.nodeName={}", config.node);
        life.spawn(follow(self.shared.client.clone(), "/api/v1/pods", fields, life.token.clone(), move |news| {
            tell.send(news).is_ok()
        }));
        life.spawn(pods::Pods::new(self.shared.clone(), life.clone()).run(inbox));
        Ok(())
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.current().token.cancel();
    }
}

fn serve(life: &Life, socket: &Path, router: tonic::transport::server::Router) -> anyhow::Result<()> {
    let listener = UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    let token = life.token.clone();
    life.spawn_whole(async move {
        let serving =
            router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), token.clone().cancelled_owned());
        let let_go = async {
            token.cancelled().await;
            tokio::time::sleep(LET_GO).await;
        };
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                tracing::error!(%error, "kubelet stand-in cannot serve");
            },
            () = let_go => {}
        }
    });
    Ok(())
}

/// Makes a directory and removes the sockets in it, but no other files, as kubelet does when it starts.
fn remove_sockets(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Like Go's `os.RemoveAll`, which kubelet uses here, has no complaint about a file that is gone: a plugin that ends, or
/// saw kubelet's socket go, takes its own sockets away at the same time.
fn remove(socket: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", socket.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_go_and_files_stay() {
        let dir = tempfile::tempdir().expect("directory");
        let (socket, file) = (dir.path().join("kerf.sock"), dir.path().join("kubelet_internal_checkpoint"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("socket");
        std::fs::write(&file, "{}").expect("file");
        remove_sockets(dir.path()).expect("removed");
        assert!(!socket.exists() && file.exists());
        remove(&socket).expect("its plugin took it away first");
        remove(dir.path()).expect_err("not a socket");
    }
}
