//! How long no pod is bound after a fault of the leader of kerf's schedulers, on real Kubernetes with kerf as its manifests
//! install it. 200 pods are created at once, and the fault happens when a quarter of them is bound. Afterwards all pods
//! have to run, and all parties to agree on who has which GPU.
//!
//! `cargo bench -p kerf-cluster --bench failover`: needs what `tests/cluster/setup.sh` gets; prints a table, and writes every
//! single measurement to a file in the folder named by `KERF_BENCH_RAW`, if set. `KERF_ROUNDS` is how often each fault
//! happens (10), `KERF_PODS` how many pods there are, `KERF_FAULTS` the faults, by their numbers in the table, joined by commas.
//! Fails where a bound is not kept. Under `cargo test` nothing runs: the tests on real Kubernetes have each fault once.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kerf_bench_support::figures::{self, Figures};
use kerf_cluster::audit::audit;
use kerf_cluster::cluster::{Cluster, Options, Way};
use kerf_cluster::failover::{self, Fault, Outcome};
use kerf_cluster::programs::Programs;
use kerf_cluster::tools::Tools;
use kerf_cluster::wait::until;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

/// The longest time for anything: a machine of two cores starts 200 containers.
const LIMIT: Duration = Duration::from_secs(300);

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
    until(LIMIT, "all pods run", async || {
        let list = pods.list(&ListParams::default()).await?;
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        let others: Vec<String> = list.iter().map(phase).filter(|phase| phase != "Running").collect();
        ensure!(list.items.len() == count && others.is_empty(), "{} of {count}: {others:?}", list.items.len());
        Ok(())
    })
    .await?;
    let placed = until(LIMIT, "all parties agree", async || audit(cluster).await?.agreed()).await?.placed.len();
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

fn pod(number: usize) -> Value {
    let limits = json!({ "inspur.com/vcuda-core": 3, "inspur.com/vcuda-memory": 2 });
    json!({
        "metadata": { "name": format!("pod-{number}") },
        "spec": {
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "enableServiceLinks": false,
            "containers": [{
                "name": "main", "image": "busybox:1.37", "command": ["sleep", "2147483647"],
                "resources": { "limits": limits },
            }],
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
