//! kerf's own kube-scheduler as a process, with the configuration that `manifests/base` gives it: for measurements, where no
//! pods run.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, ensure};

use crate::control::Control;
use crate::place::Place;
use crate::process::{Process, Spec};
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
    let client =
        format!("\nclientConnection:\n  kubeconfig: {}\n  qps: 5000\n  burst: 5000\n", kubeconfig.display());
    let text = text.replace(EXTENDER, &format!("http://127.0.0.1:{}", control.ports.extender)) + &client;
    let config = place.write("kerf-scheduler.yaml", text)?;
    let args = [
        format!("--config={}", config.display()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", control.ports.own_scheduler),
        format!("--cert-dir={}", place.dir("kerf-scheduler")?.display()),
        "--authentication-skip-lookup=true".to_owned(),
        "--authorization-always-allow-paths=/metrics,/readyz,/livez,/debug/pprof/*".to_owned(),
        "--v=2".to_owned(),
    ];
    Process::start(place, Spec::new("kerf-scheduler", tools.program("kube-scheduler"), &args))
}
