//! Files for the control plane's programs: accounts and tokens, and the scheduler's configuration.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;

use super::setup::{Ports, Scheduling};
use crate::certificates::Certificates;
use crate::network::Network;
use crate::place::Place;
use crate::tools::workspace;

/// Beside `kubeconfig` in a scheduler's configuration: no limit on its requests to the API server, in effect.
pub(crate) const UNLIMITED: &str = "\n  qps: 5000\n  burst: 5000";

pub(super) fn tokens(nodes: &[String]) -> String {
    let mut lines = vec![
        "token-admin,admin,admin,\"system:masters\"".to_owned(),
        "token-scheduler,system:kube-scheduler,scheduler,".to_owned(),
        "token-controllers,system:kube-controller-manager,controllers,".to_owned(),
    ];
    lines.extend(nodes.iter().map(|node| format!("token-{node},system:node:{node},{node},\"system:nodes\"")));
    lines.join("\n")
}

pub(super) fn kubeconfig(
    place: &Place,
    certificates: &Certificates,
    network: Network,
    user: &str,
    token: &str,
) -> anyhow::Result<PathBuf> {
    // in a file of its own, as in a pod: a running client reads it again
    let token = place.write(&format!("kubeconfig/{user}.token"), token)?;
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "kerf",
        "clusters": [{ "name": "kerf", "cluster": {
            "server": format!("https://{}", network.api()),
            "certificate-authority": certificates.file("authority"),
        }}],
        "users": [{ "name": user, "user": { "tokenFile": token } }],
        "contexts": [{ "name": "kerf", "context": { "cluster": "kerf", "user": user } }],
    });
    place.write(&format!("kubeconfig/{user}"), content.to_string())
}

/// The configuration as it ships; only the addresses of the extender and the API server differ, and, with `unlimited`,
/// the limit on the scheduler's requests to the API server.
pub(super) fn scheduler_config(
    place: &Place,
    ports: Ports,
    scheduling: Scheduling,
    unlimited: bool,
) -> anyhow::Result<PathBuf> {
    let name = match scheduling {
        Scheduling::Legacy => "legacy.yaml",
        _ => "kube-scheduler-configuration.yaml",
    };
    let shipped = workspace().join("manifests/scheduler-config").join(name);
    let mut text = fs::read_to_string(&shipped).with_context(|| shipped.display().to_string())?;
    let host = "http://kerf-extender.kerf-system.svc:3456";
    let credentials = "kubeconfig: /etc/kubernetes/scheduler.conf";
    let extenders = text.find("extenders:\n").filter(|_| text.contains(host) && text.contains(credentials));
    let extenders = extenders.with_context(|| format!("{name} is not as expected"))?;
    match scheduling {
        // as a cluster without kerf has it
        Scheduling::Own | Scheduling::Plain => {
            text.truncate(extenders);
            text = without(&text, "percentageOfNodesToScore: 100\n")?;
        }
        Scheduling::PlainAll => text.truncate(extenders),
        Scheduling::Sampled => text = without(&text, "percentageOfNodesToScore: 100\n")?,
        Scheduling::Full | Scheduling::Legacy => {}
    }
    let mut client = format!("kubeconfig: {}", place.path("kubeconfig/scheduler").display());
    if unlimited {
        client.push_str(UNLIMITED);
    }
    let text = text
        .replace(host, &format!("http://127.0.0.1:{}", ports.extender))
        .replace(credentials, &client)
        .replace("leaderElect: true", "leaderElect: false");
    place.write("control/scheduler.yaml", text)
}

fn without(text: &str, line: &str) -> anyhow::Result<String> {
    let (before, after) = text.split_once(line).with_context(|| format!("there is no {line}"))?;
    Ok(format!("{before}{after}"))
}
