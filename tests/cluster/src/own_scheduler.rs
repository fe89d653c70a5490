//! kerf's own kube-scheduler as a process, with the configuration that `manifests/base` gives it: for measurements, where no
//! pods run.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, ensure};

use crate::control::{Control, UNLIMITED, kube_scheduler};
use crate::place::Place;
use crate::process::Process;
use crate::programs::kubeconfig;
use crate::tools::{Tools, workspace};

/// The account of both, as their pod has one.
pub(crate) const ACCOUNT: &str = "kerf-scheduler";
/// Where the extender is, in the pod of the two.
const EXTENDER: &str = "http://127.0.0.1:3456";

/// Applies the objects that it needs, except the pods, and returns the flags of the extender beside it.
///
/// # Errors
/// Those of kubectl.
pub(crate) fn install(control: &Control) -> anyhow::Result<Vec<String>> {
    for file in ["scheduler-rbac", "routing"] {
        let path = workspace().join("manifests/base").join(file).with_extension("yaml");
        control.kubectl(&["apply", "-f", &path.display().to_string()])?;
    }
    Ok(vec!["--scheduler-lease=kerf-system/kerf-scheduler".to_owned()])
}

/// Starts it. The limit on its requests to the API server is taken away, as the cluster's own has none when measuring.
///
/// # Errors
/// Where it does not start.
pub(crate) fn start(place: &Arc<Place>, tools: &Tools, control: &Control) -> anyhow::Result<Process> {
    let shipped = workspace().join("manifests/base/kube-scheduler-configuration.yaml");
    let text = fs::read_to_string(&shipped).with_context(|| shipped.display().to_string())?;
    ensure!(
        text.contains(EXTENDER) && !text.contains("clientConnection"),
        "{} is not as expected",
        shipped.display()
    );
    let kubeconfig = kubeconfig(control, ACCOUNT)?;
    let client = format!("\nclientConnection:\n  kubeconfig: {}{UNLIMITED}\n", kubeconfig.display());
    let text = text.replace(EXTENDER, &format!("http://127.0.0.1:{}", control.ports.extender)) + &client;
    let config = place.write("control/kerf-scheduler.yaml", text)?;
    kube_scheduler(place, tools, "kerf-scheduler", &config, control.ports.own_scheduler)
}
