//! The control plane: etcd, API server, controller manager, scheduler, and the accounts that may use them.

mod files;
mod launch;
mod setup;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kube::api::ListParams;
use kube::core::Request;
use kube::{Client, Config};

pub(crate) use self::files::UNLIMITED;
pub(crate) use self::launch::kube_scheduler;
pub use self::setup::{Ports, Purpose, Scheduling};
use crate::certificates::Certificates;
use crate::holder::Holder;
use crate::network::Network;
use crate::place::Place;
use crate::process::Process;
use crate::tools::{Tools, output};
use crate::wait::until;

/// A running control plane.
#[derive(Debug)]
pub struct Control {
    /// The ports on which its programs listen.
    pub ports: Ports,
    /// The addresses of the API server and of pods.
    pub network: Network,
    /// The process of etcd.
    pub etcd: Process,
    /// The process of kube-apiserver.
    pub api: Process,
    /// The process of kube-controller-manager; `None` when measuring.
    pub controllers: Option<Process>,
    /// The process of kube-scheduler.
    pub scheduler: Process,
    certificates: Certificates,
    purpose: Purpose,
    place: Arc<Place>,
    kubectl: PathBuf,
}

impl Control {
    /// Starts the whole control plane for nodes with these names.
    ///
    /// # Errors
    /// Where something does not start.
    pub async fn start(
        place: &Arc<Place>,
        tools: &Tools,
        ports: Ports,
        nodes: &[String],
        purpose: Purpose,
    ) -> anyhow::Result<Self> {
        let network = Network::take(place)?;
        let certificates = Certificates::make(place, *network.api().ip())?;
        let etcd = launch::etcd(place, tools, ports)?;
        // kubelets are asked for logs by their names, which only the API server must resolve
        let hosts: String = nodes.iter().map(|node| format!("127.0.0.1 {node}\n")).collect();
        let hosts = place.write("control/hosts", format!("127.0.0.1 localhost\n{hosts}"))?;
        let names = Holder::start(place, "control", &[(hosts.display().to_string(), "/etc/hosts".into())], &[])?;
        names.ready().await?;
        place.write("control/tokens.csv", files::tokens(nodes))?;
        let api = launch::api_server(place, tools, &certificates, (ports, network), names.pid()?, purpose)?;
        for user in ["admin", "scheduler", "controllers"].into_iter().chain(nodes.iter().map(String::as_str)) {
            files::kubeconfig(place, &certificates, network, user, &format!("token-{user}"))?;
        }
        let client = client(&place.path("kubeconfig/admin")).await?;
        until(Duration::from_secs(60), "the API server is ready", async || {
            api.check()?;
            client.apiserver_version().await.map(drop).map_err(Into::into)
        })
        .await?;
        let controllers = match purpose {
            Purpose::Nodes { .. } => Some(launch::controllers(place, tools, &certificates, ports)?),
            Purpose::Measurement(_) => None,
        };
        let scheduler = launch::scheduler(place, tools, ports, purpose)?;
        let kubectl = tools.program("kubectl");
        let place = place.clone();
        Ok(Self { ports, network, etcd, api, controllers, scheduler, certificates, purpose, place, kubectl })
    }

    /// Path of the administrator's kubeconfig.
    pub fn admin(&self) -> PathBuf {
        self.place.path("kubeconfig/admin")
    }

    /// Runs kubectl as the administrator.
    ///
    /// # Errors
    /// With kubectl's output, where it fails.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.kubectl);
        // what it remembers of an API server goes by the address, which another one has had before
        command.env("KUBECACHEDIR", self.place.path("kubectl-cache"));
        output(command.arg("--kubeconfig").arg(self.admin()).args(args))
    }

    /// Writes a kubeconfig with its own token; returns its path.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn kubeconfig(&self, user: &str, token: &str) -> anyhow::Result<PathBuf> {
        files::kubeconfig(&self.place, &self.certificates, self.network, user, token)
    }

    /// The metrics of the kube-scheduler on this port, in Prometheus' text format.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn scheduler_metrics(&self, port: u16) -> anyhow::Result<String> {
        metrics(&self.scheduler_client(port)?).await
    }

    /// A client of the server of the kube-scheduler on this port.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn scheduler_client(&self, port: u16) -> anyhow::Result<Client> {
        let mut config = Config::new(format!("https://127.0.0.1:{port}").parse()?);
        // kube-scheduler signed its certificate itself
        config.accept_invalid_certs = true;
        Ok(Client::try_from(config)?)
    }

    /// Restarts kube-scheduler with another configuration.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn schedule(&self, scheduling: Scheduling) -> anyhow::Result<()> {
        self.scheduler.kill()?;
        files::scheduler_config(&self.place, self.ports, scheduling, self.purpose.is_measurement())?;
        self.scheduler.start_again()
    }
}

pub(crate) async fn metrics(client: &Client) -> anyhow::Result<String> {
    Ok(client.request_text(Request::new("/metrics").list(&ListParams::default())?).await?)
}

/// A client that uses a kubeconfig.
///
/// # Errors
/// Where the kubeconfig is invalid.
pub async fn client(path: &Path) -> anyhow::Result<Client> {
    let file = kube::config::Kubeconfig::read_from(path)?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(file, &Default::default()).await?)?)
}
