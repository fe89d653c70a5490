//! The control plane: etcd, API server, controller manager, scheduler, and who may speak to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::Client;
use serde_json::json;

use crate::certificates::Certificates;
use crate::holder::Holder;
use crate::place::Place;
use crate::process::{Process, Spec};
use crate::tools::{Tools, output, workspace};
use crate::wait::until;

/// How kube-scheduler calls the extender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// Filter, prioritize and bind: `kube-scheduler-configuration.yaml`.
    #[default]
    Full,
    /// `POST /scheduler/predicates` only: `legacy.yaml`.
    Legacy,
}

/// Ports on loopback.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// etcd, for clients and for peers.
    pub etcd: [u16; 2],
    /// The API server.
    pub api: u16,
    /// kube-scheduler's metrics.
    pub scheduler: u16,
    /// The controller manager's.
    pub controllers: u16,
    /// kerf's extender.
    pub extender: u16,
}

/// What runs.
#[derive(Debug)]
pub struct Control {
    /// Where everything listens.
    pub ports: Ports,
    /// etcd.
    pub etcd: Process,
    /// The API server.
    pub api: Process,
    /// The controller manager.
    pub controllers: Process,
    /// The scheduler.
    pub scheduler: Process,
    certificates: Certificates,
    place: Arc<Place>,
    kubectl: PathBuf,
}

impl Control {
    /// Starts all of it for nodes of these names. With `audit`, the API server writes down what kerf asks it.
    ///
    /// # Errors
    /// Where something does not start.
    pub async fn start(
        place: &Arc<Place>,
        tools: &Tools,
        ports: Ports,
        nodes: &[String],
        audit: bool,
    ) -> anyhow::Result<Self> {
        let certificates = Certificates::make(place)?;
        let etcd = etcd(place, tools, ports)?;
        // kubelets are asked for logs by their names, which only the API server needs to know
        let hosts: String = nodes.iter().map(|node| format!("127.0.0.1 {node}\n")).collect();
        let hosts = place.write("control/hosts", format!("127.0.0.1 localhost\n{hosts}"))?;
        let names = Holder::start(place, "control", &[(hosts.display().to_string(), "/etc/hosts".into())], &[])?;
        names.ready().await?;
        place.write("control/tokens.csv", tokens(nodes))?;
        let api = api_server(place, tools, &certificates, ports, names.pid()?, audit)?;
        for user in ["admin", "scheduler", "controllers"].into_iter().chain(nodes.iter().map(String::as_str)) {
            kubeconfig(place, &certificates, ports, user, &format!("token-{user}"))?;
        }
        let client = client(&place.path("kubeconfig/admin")).await?;
        until(Duration::from_secs(60), "the API server is ready", async || {
            api.check()?;
            client.apiserver_version().await.map(drop).map_err(Into::into)
        })
        .await?;
        let controllers = controllers(place, tools, &certificates, ports)?;
        let scheduler = scheduler(place, tools, ports, Scheduling::Full)?;
        let kubectl = tools.program("kubectl");
        Ok(Self { ports, etcd, api, controllers, scheduler, certificates, place: place.clone(), kubectl })
    }

    /// The administrator's kubeconfig.
    pub fn admin(&self) -> PathBuf {
        self.place.path("kubeconfig/admin")
    }

    /// Runs kubectl as the administrator.
    ///
    /// # Errors
    /// With what it said, where it fails.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        output(Command::new(&self.kubectl).arg("--kubeconfig").arg(self.admin()).args(args))
    }

    /// A kubeconfig with a token of its own.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn kubeconfig(&self, user: &str, token: &str) -> anyhow::Result<PathBuf> {
        kubeconfig(&self.place, &self.certificates, self.ports, user, token)
    }

    /// Lets kube-scheduler start anew with another configuration.
    ///
    /// # Errors
    /// Where it does not.
    pub fn schedule(&self, scheduling: Scheduling) -> anyhow::Result<()> {
        self.scheduler.kill()?;
        scheduler_config(&self.place, self.ports, scheduling)?;
        self.scheduler.start_again()
    }
}

/// A client with a kubeconfig.
///
/// # Errors
/// Where that is wrong.
pub async fn client(path: &Path) -> anyhow::Result<Client> {
    let file = kube::config::Kubeconfig::read_from(path)?;
    Ok(Client::try_from(kube::Config::from_custom_kubeconfig(file, &Default::default()).await?)?)
}

fn flags(flags: &[(&str, String)]) -> Vec<String> {
    flags.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn tokens(nodes: &[String]) -> String {
    let mut lines = vec![
        "token-admin,admin,admin,\"system:masters\"".to_owned(),
        "token-scheduler,system:kube-scheduler,scheduler,".to_owned(),
        "token-controllers,system:kube-controller-manager,controllers,".to_owned(),
    ];
    lines.extend(nodes.iter().map(|node| format!("token-{node},system:node:{node},{node},\"system:nodes\"")));
    lines.join("\n")
}

fn kubeconfig(
    place: &Place,
    certificates: &Certificates,
    ports: Ports,
    user: &str,
    token: &str,
) -> anyhow::Result<PathBuf> {
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "kerf",
        "clusters": [{ "name": "kerf", "cluster": {
            "server": format!("https://127.0.0.1:{}", ports.api),
            "certificate-authority": certificates.file("authority"),
        }}],
        "users": [{ "name": user, "user": { "token": token } }],
        "contexts": [{ "name": "kerf", "context": { "cluster": "kerf", "user": user } }],
    });
    place.write(&format!("kubeconfig/{user}"), content.to_string())
}

fn etcd(place: &Arc<Place>, tools: &Tools, ports: Ports) -> anyhow::Result<Process> {
    let [clients, peers] = ports.etcd.map(|port| format!("http://127.0.0.1:{port}"));
    let args = flags(&[
        ("data-dir", show(&place.dir("etcd")?)),
        ("listen-client-urls", clients.clone()),
        ("advertise-client-urls", clients),
        ("listen-peer-urls", peers.clone()),
        ("initial-advertise-peer-urls", peers.clone()),
        ("initial-cluster", format!("default={peers}")),
        ("unsafe-no-fsync", "true".into()),
    ]);
    Process::start(place, Spec::new("etcd", tools.program("etcd"), &args))
}

/// Writes down every request of kerf's two accounts, and of nobody else.
const AUDIT: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    users: ['system:serviceaccount:kerf-system:kerf-extender', 'system:serviceaccount:kerf-system:kerf-plugin']
  - level: None
";

fn api_server(
    place: &Arc<Place>,
    tools: &Tools,
    certificates: &Certificates,
    ports: Ports,
    inside: u32,
    audit: bool,
) -> anyhow::Result<Process> {
    let mut args = flags(&[
        ("etcd-servers", format!("http://127.0.0.1:{}", ports.etcd[0])),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", ports.api.to_string()),
        ("cert-dir", show(certificates.directory())),
        ("tls-cert-file", show(&certificates.file("server"))),
        ("tls-private-key-file", show(&certificates.key("server"))),
        ("client-ca-file", show(&certificates.file("authority"))),
        ("kubelet-client-certificate", show(&certificates.file("client"))),
        ("kubelet-client-key", show(&certificates.key("client"))),
        ("kubelet-preferred-address-types", "Hostname".into()),
        ("token-auth-file", show(&place.path("control/tokens.csv"))),
        ("service-account-key-file", show(&certificates.key("accounts"))),
        ("service-account-signing-key-file", show(&certificates.key("accounts"))),
        ("service-account-issuer", "https://kubernetes.default.svc".into()),
        ("service-cluster-ip-range", "10.96.0.0/24".into()),
        ("authorization-mode", "Node,RBAC".into()),
        ("enable-admission-plugins", "NodeRestriction".into()),
        // nobody else serves it, and its lease would be one more thing to wait for
        ("endpoint-reconciler-type", "none".into()),
        ("shutdown-watch-termination-grace-period", "0s".into()),
    ]);
    if audit {
        let policy = place.write("control/audit.yaml", AUDIT)?;
        args.extend(flags(&[
            ("audit-policy-file", show(&policy)),
            ("audit-log-path", show(&place.path("control/audit.log"))),
        ]));
    }
    let spec = Spec { inside: Some(inside), ..Spec::new("kube-apiserver", tools.program("kube-apiserver"), &args) };
    Process::start(place, spec)
}

fn controllers(
    place: &Arc<Place>,
    tools: &Tools,
    certificates: &Certificates,
    ports: Ports,
) -> anyhow::Result<Process> {
    let args = flags(&[
        ("kubeconfig", show(&place.path("kubeconfig/controllers"))),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", ports.controllers.to_string()),
        ("cert-dir", show(&place.dir("control/controllers")?)),
        ("leader-elect", "false".into()),
        ("use-service-account-credentials", "true".into()),
        ("service-account-private-key-file", show(&certificates.key("accounts"))),
        ("root-ca-file", show(&certificates.file("authority"))),
        // a node that was restarted on purpose must not lose its pods for it
        ("node-monitor-grace-period", "120s".into()),
    ]);
    let spec = Spec::new("kube-controller-manager", tools.program("kube-controller-manager"), &args);
    Process::start(place, spec)
}

fn scheduler(place: &Arc<Place>, tools: &Tools, ports: Ports, scheduling: Scheduling) -> anyhow::Result<Process> {
    let config = scheduler_config(place, ports, scheduling)?;
    let args = flags(&[
        ("config", show(&config)),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", ports.scheduler.to_string()),
        ("cert-dir", show(&place.dir("control/scheduler")?)),
        ("authentication-skip-lookup", "true".into()),
        ("authorization-always-allow-paths", "/metrics,/readyz,/livez".into()),
        ("v", "2".into()),
    ]);
    Process::start(place, Spec::new("kube-scheduler", tools.program("kube-scheduler"), &args))
}

/// The configuration as it ships; what differs is where the extender and the API server are.
fn scheduler_config(place: &Place, ports: Ports, scheduling: Scheduling) -> anyhow::Result<PathBuf> {
    let name = match scheduling {
        Scheduling::Full => "kube-scheduler-configuration.yaml",
        Scheduling::Legacy => "legacy.yaml",
    };
    let shipped = workspace().join("manifests/scheduler-config").join(name);
    let text = fs::read_to_string(&shipped).with_context(|| show(&shipped))?;
    let host = "http://kerf-extender.kerf-system.svc:3456";
    let credentials = "/etc/kubernetes/scheduler.conf";
    ensure!(text.contains(host) && text.contains(credentials), "{name} is not as expected");
    let text = text
        .replace(host, &format!("http://127.0.0.1:{}", ports.extender))
        .replace(credentials, &show(&place.path("kubeconfig/scheduler")))
        .replace("leaderElect: true", "leaderElect: false");
    place.write("control/scheduler.yaml", text)
}
