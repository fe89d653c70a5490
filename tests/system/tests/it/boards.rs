//! Every query of every board gives something on a real Prometheus that scrapes the extender and the plugin, and every legend
//! has its labels.

use std::fmt::Write as _;
use std::path::Path;

use kerf_system::prometheus::{self, Prometheus, Target};
use kerf_system::rules;
use kerf_system::stack::{MachineSpec, Stack, StackConfig};
use kerf_system::workload::{container, pod};
use serde_json::Value;

const NODE: &str = "node-0";
/// What Grafana puts in the place of a variable; of overlapping names the longer one first.
const VARIABLES: [(&str, &str); 5] = [
    ("[$__range:1m]", "[10s:1s]"),
    ("$__rate_interval", "5s"),
    ("$__range", "10s"),
    ("$namespace", ".+"),
    ("$node", NODE),
];

/// The boards, by file.
fn boards() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/components/dashboards");
    let files = std::fs::read_dir(folder).expect("the boards").map(|entry| entry.expect("a file").path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).expect("a board");
        (path.display().to_string(), serde_json::from_str(&text).expect("JSON"))
    };
    files.map(read).collect()
}

/// Each query with where it stands and its legend.
fn queries() -> Vec<(String, String, String)> {
    let mut queries = Vec::new();
    for (file, board) in boards() {
        for panel in board["panels"].as_array().expect("panels") {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let mut query = target["expr"].as_str().expect("a query").to_owned();
                for (name, value) in VARIABLES {
                    query = query.replace(name, value);
                }
                let legend = target["legendFormat"].as_str().unwrap_or_default().to_owned();
                queries.push((format!("{file}: {}", panel["title"]), query, legend));
            }
        }
    }
    queries
}

/// The labels that a legend names.
fn labels(legend: &str) -> impl Iterator<Item = &str> {
    legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_query_of_every_board_gives_something() {
    if !prometheus::is_there() {
        return;
    }
    let cards = "[[gpu]]\ncount = 2\nuuid = \"GPU-a\"\nmodel = \"A100\"\nmemory_mib = 40960\nutilization = 40\n\
                 memory_used_mib = 2048\ntemperature_celsius = 50\npower_milliwatts = 100000\ndevice_nodes = [\"/dev/null\"]\n";
    let mut spec = MachineSpec::equal(NODE, 2, "A100", 40_960);
    spec.cards = cards.to_owned();
    let stack = Stack::start(&[spec], StackConfig { seed: 4, ..Default::default() }).await.expect("start");
    for name in ["first", "second"] {
        stack.submit(pod(name, vec![], vec![container("main", "60", "30")])).expect("pod");
    }
    stack.until_running(2).await.expect("both run");
    // it fits on no GPU and is tried again and again, so that the extender has calls to answer
    stack.submit(pod("waits", vec![], vec![container("main", "50", "4")])).expect("pod");
    let mut busy = cards.to_owned();
    let process =
        "gpu = \"GPU-a-0\"\nmemory_mib = 1024\nutilization = 30\npod = \"default/first\"\ncontainer = \"main\"";
    write!(busy, "[[process]]\npid = {}\n{process}\n", std::process::id()).expect("text");
    std::fs::write(&stack.machines[NODE].cards, busy).expect("written");

    let prometheus = Prometheus::start(&rules::at_once()).await.expect("prometheus");
    let addresses = [stack.extender().listening().metrics, stack.machines[NODE].listening.metrics];
    let targets = addresses.map(|address| Target { address, labels: Vec::new() });
    prometheus.scrape(&targets).expect("targets");

    let queries = queries();
    assert!(queries.len() > 60, "{} queries", queries.len());
    for (of, query, legend) in &queries {
        let series = prometheus
            .until(query, async || {
                let series = prometheus.query(query).await?;
                // the time to answer a verb that is not called is no number
                Ok(series.iter().any(|(_, value)| value.is_finite()).then_some(series))
            })
            .await
            .unwrap_or_else(|error| panic!("{of}: {error:#}"));
        for label in labels(legend) {
            let has = |series: &Value| series[label].is_string();
            assert!(series.iter().any(|(labels, _)| has(labels)), "{of}: no {label} in {series:?}");
        }
    }
    stack.shutdown().await.expect("clean end");
}
