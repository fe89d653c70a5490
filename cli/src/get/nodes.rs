//! `kerf get nodes`

use super::shown::{Shown, sums};
use crate::amounts::{NONE, UNKNOWN, gpus, memory, share};
use crate::table::{Column, Table};
use crate::view::{Node, View};

const COLUMNS: [Column; 8] = [
    Column::name("NAME"),
    Column::name("STATUS"),
    Column::number("GPUS"),
    Column::number("COMPUTE"),
    Column::number("USED"),
    Column::number("MEMORY"),
    Column::number("USED"),
    Column::number("PODS"),
];
const WIDE: [Column; 4] =
    [Column::name("MODEL"), Column::new("FREE AT MOST"), Column::new("CPU FREE"), Column::new("TAINTS")];

pub fn table(view: &View, wide: bool) -> Shown {
    let mut table = Table::new(COLUMNS.into_iter().chain(WIDE.into_iter().filter(|_| wide)));
    for node in &view.nodes {
        let more = if wide { details(node).to_vec() } else { Vec::new() };
        table.row(cells(node).into_iter().chain(more));
    }
    let mut below = vec![sums(&view.totals)];
    if let Some(schedulers) = &view.schedulers {
        let standby = if schedulers.standby.is_empty() { "none".to_owned() } else { schedulers.standby.join(", ") };
        let active = schedulers.active.as_deref().unwrap_or("nobody");
        below.push(format!("scheduler in use: {active}; standby: {standby}"));
    }
    if view.nodes.is_empty() {
        below = vec!["no node has GPUs: see kubectl get nodes -L nvidia-device-enable".to_owned()];
    }
    Shown { table, below, found: !view.nodes.is_empty() }
}

fn cells(node: &Node) -> [String; 8] {
    let totals = &node.totals;
    let taking = match totals.usable_gpus {
        usable if usable == totals.gpus => totals.gpus.to_string(),
        usable => format!("{usable}/{}", totals.gpus),
    };
    let of = |granted: String, capacity: String| format!("{granted}/{capacity}");
    let used = |text: fn(u64) -> String, amount: Option<u64>| amount.map_or_else(|| UNKNOWN.to_owned(), text);
    [
        node.name.clone(),
        status(node),
        taking,
        of(gpus(totals.granted.compute), gpus(totals.capacity.compute)),
        used(gpus, totals.used.map(|used| used.compute)),
        of(memory(totals.granted.memory_mib), memory(totals.capacity.memory_mib)),
        used(memory, totals.used.map(|used| used.memory_mib)),
        totals.holding_pods.to_string(),
    ]
}

fn status(node: &Node) -> String {
    let mut words = vec![match node.ready {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }];
    if !node.schedulable {
        words.push("SchedulingDisabled");
    }
    if node.trouble.is_some() {
        words.push("TakesNoPod");
    }
    if node.failing {
        words.push("AllocationsFail");
    }
    words.join(",")
}

fn details(node: &Node) -> [String; 4] {
    let mut models: Vec<&str> = node.gpus.iter().map(|gpu| &*gpu.model).collect();
    models.sort_unstable();
    models.dedup();
    let cpu = |cpu: u64| format!("{}.{}", cpu / 1000, cpu % 1000 / 100);
    let cpu = node.host_free.map_or_else(|| UNKNOWN.to_owned(), |free| cpu(free.cpu_milli));
    let taints = if node.taints.is_empty() { NONE.to_owned() } else { node.taints.join(", ") };
    [models.join(", "), share(node.totals.largest_free), cpu, taints]
}
