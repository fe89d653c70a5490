//! How fast the extender answers kube-scheduler, and how much memory it takes, at 5,000 nodes with 8 cards each
//! and 20,000 placed pods. The real program in a process of its own, over HTTP on loopback; the API server is a
//! stand-in in this process.
//!
//! `cargo bench -p kerf-extender --bench extender_http`: prints a table, and writes every single measurement to
//! a file in the folder named by `KERF_BENCH_RAW`, if set. Under `cargo test` everything is small and unmeasured.

#[path = "support/extender_process.rs"]
mod extender_process;
#[path = "support/figures.rs"]
#[allow(dead_code, reason = "each benchmark uses a part of it")]
mod figures;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/objects.rs"]
mod objects;

use std::time::Instant;

use extender_process::{Connection, ExtenderProcess};
use figures::Figures;
use kerf_testkit::api::ApiServer;
use objects::{node, pending_pod, placed_pod};
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
    extender.stop()?;
    figures.finish(test)
}
