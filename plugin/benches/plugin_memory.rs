//! How much memory the plugin takes with 8 GPUs of 141 GiB (800 and 4,488 device ids), at rest and with 56 shares.
//! The real program in a process of its own; kubelet and API server are stand-ins in this process.
//!
//! `cargo bench -p kerf-plugin --bench plugin_memory`; `KERF_BENCH_RAW` names a folder for the values.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kerf::annotation::{self, Keys};
use kerf::ids::DeviceId;
use kerf::plan::{ContainerGrant, DeviceRef, Grant, Placement, Plan};
use kerf::request::ContainerKind;
use kerf::units::Share;
use kerf_bench_support::figures::{self, Figures};
use kerf_bench_support::memory;
use kerf_testkit::api::ApiServer;
use kerf_testkit::kubelet::{Kubelet, KubeletConfig};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// Ends with the benchmark, whatever happens.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let test = figures::only_a_test();
    let pods = if test { 2 } else { 56 };
    let api = ApiServer::start().await?;
    let folder = tempfile::Builder::new().prefix("kerf").tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    api.write_kubeconfig(&kubeconfig)?;
    let cards = folder.path().join("cards.toml");
    std::fs::write(
        &cards,
        "[[gpu]]\ncount = 8\nuuid = \"GPU-00000000-0000-4000-8000-00000000000\"\nmemory_mib = 143771\n",
    )?;
    let kubelet = Kubelet::start(KubeletConfig::new("node", api.url(), folder.path())).await?;
    let child = Command::new(env!("CARGO_BIN_EXE_kerf-plugin"))
        .args(["--node-name", "node", "--backend", "simulated", "--metrics-listen", "127.0.0.1:0", "--log", "warn"])
        .arg("--simulated-file")
        .arg(&cards)
        .arg("--kubelet-dir")
        .arg(folder.path())
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .stdout(Stdio::null())
        .spawn()
        .context("plugin")?;
    let process = Process(child);
    let keys = Keys::default();
    kubelet.wait_registered(&[&keys.core, &keys.memory], PATIENCE).await?;
    let mut figures = Figures::new("plugin_memory");
    figures.value("plugin memory, 8 cards, at rest", "MiB", memory::resident_mib(process.0.id())?.0);
    for number in 0..pods {
        api.create("pods", pod(&keys, number))?;
    }
    let running = |pods_seen: &[Arc<Value>]| {
        let confirmed = |pod: &Value| pod["metadata"]["annotations"][&keys.gpu_assigned] == "true";
        let done = pods_seen.iter().filter(|pod| pod["status"]["phase"] == "Running" && confirmed(pod)).count();
        (done == pods).then_some(())
    };
    api.wait_for("pods", PATIENCE, running).await?;
    let (now, peak) = memory::resident_mib(process.0.id())?;
    figures.value("plugin memory, 8 cards, 56 shares", "MiB", now);
    figures.value("plugin memory, highest ever", "MiB", peak);
    drop(process);
    kubelet.shutdown().await;
    figures.finish(test)
}

/// A pod as the extender binds it: a seventh of a GPU.
fn pod(keys: &Keys, number: usize) -> Value {
    let card = u32::try_from(number % 8).unwrap_or_default();
    let share = Share::new(140, 70 * 256);
    let device = DeviceId::from(format!("GPU-00000000-0000-4000-8000-00000000000-{card}"));
    let gpus = Grant::Share { device: DeviceRef { id: device, index: card }, share };
    let grant = ContainerGrant { container: "main".into(), kind: ContainerKind::App, position: 0, gpus };
    let time = 1_700_000_000_000_000_000 + number as u64;
    let plan = Plan { grants: vec![grant] };
    let placement = Placement::new("node", time, plan);
    let limits = json!({ &keys.core: "14", &keys.memory: "70" });
    json!({
        "metadata": { "name": format!("pod-{number:02}"), "namespace": "default",
                      "annotations": annotation::write(&placement, keys) },
        "spec": { "nodeName": "node", "containers": [{ "name": "main", "image": "example/none",
                  "resources": { "limits": limits, "requests": limits } }] },
        "status": { "phase": "Pending" },
    })
}
