//! How long no pod is bound after a fault of the leader of kerf's schedulers, on real Kubernetes with kerf as its manifests
//! install it. 200 pods are created at once, and the fault happens when a quarter of them is bound. Afterwards all have to be
//! bound, with a record each, and no GPU has more than it can hold. Their Nodes are objects only: on a small machine, 200
//! containers that start would be measured instead. The tests on real Kubernetes have the same faults with pods that run.
//!
//! `cargo bench -p kerf-cluster --bench failover`: needs what `tests/cluster/setup.sh` gets; prints a table, and writes every
//! single measurement to a file in the folder named by `KERF_BENCH_RAW`, if set. `KERF_ROUNDS` is how often each fault
//! happens (10), `KERF_PODS` how many pods there are, `KERF_FAULTS` the faults, by their numbers in the table, joined by commas.
//! Fails where a bound is not kept. Under `cargo test` nothing runs: the tests on real Kubernetes have each fault once.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kerf::k8s::{self, PodView};
use kerf_bench_support::figures::{self, Figures};
use kerf_cluster::audit::Audit;
use kerf_cluster::cluster::{Cluster, Options, Way};
use kerf_cluster::failover::{self, Fault, Outcome};
use kerf_cluster::programs::Programs;
use kerf_cluster::tools::Tools;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// The longest time for anything.
const LIMIT: Duration = Duration::from_secs(300);

/// How many Nodes there are. Each has room for 20 pods.
const NODES: usize = 20;

fn main() -> anyhow::Result<()> {
    if figures::only_a_test() {
        println!("failover: left to the tests on real Kubernetes");
        return Ok(());
    }
    let tools = Tools::find()?;
    let programs = Programs::build(true)?;
    let (rounds, pods) = (wished("KERF_ROUNDS", &[10])?, wished("KERF_PODS", &[200])?);
    let (rounds, pods) = (rounds.iter().sum(), pods.iter().sum());
    let faults = wished("KERF_FAULTS", &[1, 2, 3, 4])?;
    let runtime = tokio::runtime::Runtime::new()?;
    let options = Options { way: Way::simulated(), ..Options::default() };
    let cluster = runtime.block_on(Cluster::up(&tools, &programs, &options))?;
    let result = runtime.block_on(measure(&cluster, &faults, rounds, pods));
    let logs = kerf_cluster::place::base().with_extension("logs");
    cluster.down(result.is_err().then_some(logs.as_path()))?;
    result
}

async fn measure(cluster: &Cluster, faults: &[usize], rounds: usize, pods: usize) -> anyhow::Result<()> {
    create_nodes(cluster).await?;
    let mut figures = Figures::new("failover");
    let mut late = Vec::new();
    for number in faults {
        let fault = *number
            .checked_sub(1)
            .and_then(|at| Fault::ALL.get(at))
            .with_context(|| format!("no fault {number}"))?;
        let mut outcomes = Vec::new();
        for round in 0..rounds {
            let outcome = once(cluster, fault, round, pods)
                .await
                .with_context(|| format!("{}, round {round}", fault.name()))?;
            if outcome.resumed > fault.limit() {
                late.push(format!("{}: {:?}", fault.name(), outcome.resumed));
            }
            outcomes.push(outcome);
        }
        let name = format!("{number} {}", fault.name());
        figures.series(
            &format!("{name}: next binding after"),
            outcomes.iter().map(|outcome| outcome.resumed).collect(),
        );
        figures.series(&format!("{name}: all bound after"), outcomes.iter().map(|outcome| outcome.all).collect());
    }
    figures.finish(false)?;
    ensure!(late.is_empty(), "too late: {}", late.join("; "));
    Ok(())
}

/// One round: everything is ready before, and gone afterwards.
async fn once(cluster: &Cluster, fault: Fault, round: usize, count: usize) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    cluster.ready(LIMIT).await?;
    let name = format!("{}-{round}", fault.name().replace(' ', "-"));
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(json!({ "metadata": { "name": name } }))?)
        .await?;
    cluster.admits(&name).await?;
    let outcome = failover::burst(cluster, &name, (0..count).map(pod).collect(), fault, LIMIT).await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &name);
    let placed = records(cluster, &pods).await?.placed.len();
    ensure!(placed == count, "{placed} of {count} are placed");
    until(LIMIT, "the pods are gone", async || {
        let now = DeleteParams::default().grace_period(0);
        pods.delete_collection(&now, &ListParams::default()).await?;
        ensure!(pods.list(&ListParams::default()).await?.items.is_empty(), "some are there");
        Ok(())
    })
    .await?;
    namespaces.delete(&name, &DeleteParams::default()).await?;
    eprintln!("{name}: {outcome:?}, the round took {:.0} s", began.elapsed().as_secs_f64());
    Ok(outcome)
}

/// What the records of all pods say.
async fn records(cluster: &Cluster, pods: &Api<Pod>) -> anyhow::Result<Audit> {
    let mut audit = Audit::default();
    for pod in pods.list(&ListParams::default()).await? {
        let Some(view) = k8s::pod(&pod, &cluster.keys) else { continue };
        let name = view.pod.to_string();
        // there is no plugin that would confirm it
        if let Some((node, placement)) = audit.placement(PodView { confirmed: true, ..view }) {
            audit.count(name, &node, placement);
        }
    }
    for node in Api::<Node>::all(cluster.client.clone()).list(&ListParams::default().labels("paper=yes")).await? {
        audit.capacity(&node, &cluster.keys);
    }
    audit.agreed()
}

/// Creates Nodes with the GPUs of the first node, and without a kubelet.
async fn create_nodes(cluster: &Cluster) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let model = cluster.nodes.first().context("no node")?;
    let (keys, real) = (&cluster.keys, nodes.get(&model.name).await?);
    let inventory =
        real.metadata.annotations.and_then(|mut all| all.remove(&keys.inventory)).context("no inventory")?;
    let offered = real.status.and_then(|status| status.allocatable).context("no amounts")?;
    let amounts = json!({
        "cpu": "96", "memory": "768Gi", "pods": "110", &keys.core: offered.get(&keys.core), &keys.memory: offered.get(&keys.memory),
    });
    for number in 0..NODES {
        let name = format!("paper-{number}");
        let inventory = inventory.replace(&model.name, &name);
        let node = json!({
            "metadata": { "name": name, "labels": { "paper": "yes" }, "annotations": { &keys.inventory: inventory } },
            // keeps pods away that run on every node
            "spec": { "taints": [{ "key": "paper", "effect": "NoSchedule" }] },
        });
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        let status = json!({ "status": { "capacity": amounts, "allocatable": amounts } });
        nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    }
    Ok(())
}

fn pod(number: usize) -> Value {
    let limits = json!({ "inspur.com/vcuda-core": 20, "inspur.com/vcuda-memory": 10 });
    json!({
        "metadata": { "name": format!("pod-{number}") },
        "spec": {
            "nodeSelector": { "paper": "yes" }, "tolerations": [{ "operator": "Exists" }],
            "containers": [{ "name": "main", "image": "busybox:1.37", "resources": { "limits": limits } }],
        },
    })
}

/// Numbers from the environment, or the default.
fn wished(name: &str, otherwise: &[usize]) -> anyhow::Result<Vec<usize>> {
    match std::env::var(name) {
        Ok(list) => {
            list.split(',').map(|number| number.parse().with_context(|| format!("{name}={list}"))).collect()
        }
        Err(_) => Ok(otherwise.to_vec()),
    }
}
