//! The command lines of the control plane's programs.

use std::path::Path;
use std::sync::Arc;

use super::files;
use super::setup::{Ports, Purpose};
use crate::certificates::Certificates;
use crate::network::Network;
use crate::place::Place;
use crate::process::{Process, Spec};
use crate::tools::Tools;

fn flags(flags: &[(&str, String)]) -> Vec<String> {
    flags.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

pub(super) fn etcd(place: &Arc<Place>, tools: &Tools, ports: Ports) -> anyhow::Result<Process> {
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

/// Logs every request of kerf's accounts, and no others.
const AUDIT: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    users:
      - system:serviceaccount:kerf-system:kerf-extender
      - system:serviceaccount:kerf-system:kerf-plugin
      - system:serviceaccount:kerf-system:kerf-scheduler
  - level: None
";

pub(super) fn api_server(
    place: &Arc<Place>,
    tools: &Tools,
    certificates: &Certificates,
    (ports, network): (Ports, Network),
    inside: u32,
    purpose: Purpose,
) -> anyhow::Result<Process> {
    let mut args = flags(&[
        ("etcd-servers", format!("http://127.0.0.1:{}", ports.etcd[0])),
        ("bind-address", network.api().ip().to_string()),
        ("secure-port", network.api().port().to_string()),
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
        ("service-cluster-ip-range", network.services()),
        ("authorization-mode", "Node,RBAC".into()),
        // it has no other replica, and its lease would be one more thing to wait for
        ("endpoint-reconciler-type", "none".into()),
        ("shutdown-watch-termination-grace-period", "0s".into()),
    ]);
    match purpose {
        Purpose::Nodes { .. } => args.extend(flags(&[("enable-admission-plugins", "NodeRestriction".into())])),
        // as in scheduler_perf: service accounts are not created, taints not removed, and nothing waits in a queue
        Purpose::Measurement(_) => args.extend(flags(&[
            ("disable-admission-plugins", "ServiceAccount,TaintNodesByCondition,Priority".into()),
            ("max-requests-inflight", "3000".into()),
            ("max-mutating-requests-inflight", "1000".into()),
        ])),
    }
    if matches!(purpose, Purpose::Nodes { audit: true, .. }) {
        let policy = place.write("control/audit.yaml", AUDIT)?;
        args.extend(flags(&[
            ("audit-policy-file", show(&policy)),
            ("audit-log-path", show(&place.path("control/audit.log"))),
        ]));
    }
    let spec = Spec { inside: Some(inside), ..Spec::new("kube-apiserver", tools.program("kube-apiserver"), &args) };
    Process::start(place, spec)
}

pub(super) fn controllers(
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
        // a node that a test restarts must not lose its pods
        ("node-monitor-grace-period", "120s".into()),
    ]);
    let spec = Spec::new("kube-controller-manager", tools.program("kube-controller-manager"), &args);
    Process::start(place, spec)
}

pub(super) fn scheduler(
    place: &Arc<Place>,
    tools: &Tools,
    ports: Ports,
    purpose: Purpose,
) -> anyhow::Result<Process> {
    let config = files::scheduler_config(place, ports, purpose.scheduling(), purpose.is_measurement())?;
    kube_scheduler(place, tools, "kube-scheduler", &config, ports.scheduler)
}

/// Starts a kube-scheduler with this configuration, whose metrics are on this port.
pub(crate) fn kube_scheduler(
    place: &Arc<Place>,
    tools: &Tools,
    name: &str,
    config: &Path,
    port: u16,
) -> anyhow::Result<Process> {
    let args = flags(&[
        ("config", show(config)),
        ("bind-address", "127.0.0.1".into()),
        ("secure-port", port.to_string()),
        ("cert-dir", show(&place.dir(&format!("control/{name}"))?)),
        ("authentication-skip-lookup", "true".into()),
        ("authorization-always-allow-paths", "/metrics,/readyz,/livez,/debug/pprof/*".into()),
        ("v", "2".into()),
    ]);
    Process::start(place, Spec::new(name, tools.program("kube-scheduler"), &args))
}
