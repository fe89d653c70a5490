//! How fast the extender answers kube-scheduler, and how much memory it takes, at 5,000 nodes with 8 GPUs each
//! and 20,000 placed pods; and how fast it answers hard questions: about a pod of eight containers that fits on none of
//! 5,000 nodes of 16 unlike GPUs, and about which pods to evict on 500 nodes with 104 pods each; and while it is attacked. The real program in a
//! process of its own, over HTTP on loopback; the API server is a stand-in in this process.
//!
//! `cargo bench -p kerf-extender --bench extender_http`: prints a table, and writes every single measurement to
//! a file in the folder named by `KERF_BENCH_RAW`, if set. Under `cargo test` everything is small and unmeasured.

mod extender_process;

use std::time::{Duration, Instant};

use extender_process::{Connection, ExtenderProcess};
use kerf_bench_support::figures::{self, Figures};
use kerf_bench_support::objects::{node, node_of, pending_pod, placed_on, placed_pod};
use kerf_testkit::api::ApiServer;
use kerf_testkit::attack::{Attack, Target};
use serde_json::{Value, json};

struct Size {
    nodes: usize,
    pods: usize,
    few: usize,
    runs: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let test = figures::only_a_test();
    let size = if test {
        Size { nodes: 50, pods: 200, few: 5, runs: 3 }
    } else {
        Size { nodes: 5_000, pods: 20_000, few: 500, runs: 1_000 }
    };
    let api = ApiServer::start().await?;
    let nodes: Vec<Value> = (0..size.nodes).map(|number| node(number, 8)).collect();
    for node in &nodes {
        api.create("nodes", node.clone())?;
    }
    for number in 0..size.pods {
        api.create("pods", placed_pod(number, size.nodes))?;
    }
    let begun = Instant::now();
    let extender = ExtenderProcess::start(env!("CARGO_BIN_EXE_kerf-extender"), &api).await?;
    eprintln!("ready after {:?} with {} nodes and {} pods", begun.elapsed(), size.nodes, size.pods);
    let mut figures = Figures::new("extender_http");
    figures.value("extender memory once synced", "MiB", extender.memory_mib()?.0);

    let names: Vec<String> =
        nodes.iter().filter_map(|n| Some(n["metadata"]["name"].as_str()?.to_owned())).collect();
    // every k-th name, so that few candidates are as mixed as all of them
    let some = |count: usize| names.iter().step_by(names.len() / count).take(count).cloned().collect::<Vec<_>>();
    let whole: Vec<&Value> = nodes.iter().step_by(nodes.len() / size.few).take(size.few).collect();
    let share = pending_pod("share", "50", "20");
    let cards = pending_pod("cards", "400", "");
    let cases = [
        (format!("{} names, share", size.few), json!({ "Pod": share, "NodeNames": some(size.few) }), size.runs),
        (format!("{} names, 4 cards", size.few), json!({ "Pod": cards, "NodeNames": some(size.few) }), size.runs),
        (format!("{} names, share", size.nodes), json!({ "Pod": share, "NodeNames": names }), size.runs),
        (
            format!("{} whole nodes, share", size.few),
            json!({ "Pod": share, "Nodes": { "items": whole } }),
            size.runs,
        ),
    ];
    let mut connection = Connection::open(extender.address).await?;
    for (case, body, runs) in &cases {
        let body = serde_json::to_vec(body)?;
        for verb in ["filter", "prioritize"] {
            for _ in 0..runs / 10 {
                connection.post(verb, &body).await?;
            }
            let mut series = Vec::with_capacity(*runs);
            for _ in 0..*runs {
                let begun = Instant::now();
                connection.post(verb, &body).await?;
                series.push(begun.elapsed());
            }
            figures.series(&format!("{verb}, {case}"), series);
        }
    }
    let (now, peak) = extender.memory_mib()?;
    figures.value("extender memory after all calls", "MiB", now);
    figures.value("extender memory, highest ever", "MiB", peak);
    under_attack(&mut figures, &extender, &cases[0], if test { 3 } else { 5_000 }).await?;
    extender.stop()?;
    drop(api);
    hard_cases(&mut figures, &size).await?;
    figures.finish(test)
}

/// The same calls, while others send halves of requests, bodies and names without end over thousands of connections, and
/// read no reports. Attackers and the stand-in share this machine's processors with the extender.
async fn under_attack(
    figures: &mut Figures,
    extender: &ExtenderProcess,
    (case, body, _): &(String, Value, usize),
    runs: usize,
) -> anyhow::Result<()> {
    let body = serde_json::to_vec(body)?;
    let &ExtenderProcess { address: scheduler, metrics, debug, .. } = extender;
    let attack = Attack::begin(Target { scheduler, metrics, debug, largest: 8 << 20 });
    while attack.rounds().any(|(_, rounds)| rounds < 3) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut connection = Connection::open(scheduler).await?;
    let mut series = Vec::with_capacity(runs);
    for _ in 0..runs {
        let begun = Instant::now();
        connection.post("filter", &body).await?;
        series.push(begun.elapsed());
    }
    eprintln!("attackers' rounds: {:?}", attack.rounds().collect::<Vec<_>>());
    figures.series(&format!("filter, {case}, under attack"), series);
    figures.value("extender memory, highest ever, after the attack", "MiB", extender.memory_mib()?.1);
    Ok(())
}

/// Memory of GPUs, and eight containers (core, memory; whether it is a sidecar, an init container) that fit on them in
/// no arrangement, which takes thousands of steps to find out.
const UNLIKE: [u64; 16] = [24, 17, 28, 20, 20, 18, 17, 24, 25, 26, 20, 19, 26, 20, 19, 22];
const INITS: [(u32, u32, bool); 5] =
    [(44, 20, true), (41, 16, true), (46, 27, true), (47, 27, false), (41, 12, true)];
const APPS: [(u32, u32); 3] = [(46, 3), (47, 18), (45, 12)];

/// Pods on each GPU of the nodes where room must be made.
const CROWD: usize = 13;

async fn hard_cases(figures: &mut Figures, size: &Size) -> anyhow::Result<()> {
    let api = ApiServer::start().await?;
    let crowded = size.nodes..size.nodes + size.few;
    let nodes: Vec<Value> = (0..size.nodes)
        .map(|number| node_of(number, &UNLIKE))
        .chain(crowded.clone().map(|number| node(number, 8)))
        .collect();
    for node in &nodes {
        api.create("nodes", node.clone())?;
    }
    let mut victims = serde_json::Map::new();
    for node in crowded {
        for pod in 0..8 * CROWD {
            let made = placed_on(node * 8 * CROWD + pod, node, u32::try_from(pod / CROWD)?, 7, 4);
            let made = api.create("pods", made)?;
            if pod == 0 {
                let chosen = json!({ "Pods": [{ "UID": made["metadata"]["uid"] }], "NumPDBViolations": 0 });
                victims.insert(nodes[node]["metadata"]["name"].as_str().unwrap_or_default().to_owned(), chosen);
            }
        }
    }
    let extender = ExtenderProcess::start(env!("CARGO_BIN_EXE_kerf-extender"), &api).await?;
    let names: Vec<&Value> = nodes.iter().take(size.nodes).map(|node| &node["metadata"]["name"]).collect();
    let keys = kerf::annotation::Keys::default();
    let container = |number: usize, core: u32, memory: u32| {
        let limits = json!({ &keys.core: core.to_string(), &keys.memory: memory.to_string() });
        json!({ "name": format!("c{number}"), "resources": { "limits": limits, "requests": limits } })
    };
    let mut several = pending_pod("several", "1", "1");
    let inits = INITS.iter().enumerate().map(|(number, (core, memory, stays))| {
        let mut init = container(number, *core, *memory);
        if *stays {
            init["restartPolicy"] = "Always".into();
        }
        init
    });
    several["spec"]["initContainers"] = inits.collect();
    let apps = APPS.iter().enumerate().map(|(number, (core, memory))| container(5 + number, *core, *memory));
    several["spec"]["containers"] = apps.collect();
    let mut preemptor = pending_pod("preemptor", "100", "");
    preemptor["spec"]["priority"] = 1000.into();
    let cases = [
        (
            format!("filter, {} names, 8 containers that fit nowhere", size.nodes),
            "filter",
            json!({ "Pod": several, "NodeNames": names }),
            size.runs / 100,
        ),
        (
            format!("preempt, {} candidates of {} pods", size.few, 8 * CROWD),
            "preempt",
            json!({ "Pod": preemptor, "NodeNameToMetaVictims": victims }),
            size.runs / 20,
        ),
    ];
    let mut connection = Connection::open(extender.address).await?;
    for (case, verb, body, runs) in cases {
        let body = serde_json::to_vec(&body)?;
        let mut series = Vec::new();
        for _ in 0..runs.max(1) {
            let begun = Instant::now();
            let answer: Value = serde_json::from_slice(connection.post(verb, &body).await?)?;
            series.push(begun.elapsed());
            let (found, expected) = match verb {
                "filter" => (answer["FailedNodes"].as_object().map_or(0, |nodes| nodes.len()), size.nodes),
                _ => (answer["NodeNameToMetaVictims"].as_object().map_or(0, |nodes| nodes.len()), size.few),
            };
            anyhow::ensure!(found == expected, "{case}: the answer is about {found} nodes: {answer:.300}");
        }
        figures.series(&case, series);
    }
    extender.stop()
}
