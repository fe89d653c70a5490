//! `kerf get gpus`

use super::shown::{Shown, sums};
use crate::amounts::{NONE, UNKNOWN, memory, percent, share};
use crate::table::{Column, Table};
use crate::view::{Gpu, GpuState, Holder, View};

const COLUMNS: [Column; 8] = [
    Column::name("NODE"),
    Column::number("GPU"),
    Column::name("MODEL"),
    Column::new("STATE"),
    Column::number("COMPUTE"),
    Column::number("USED"),
    Column::number("MEMORY"),
    Column::number("USED"),
];
const WIDE: [Column; 6] = [
    Column::name("UUID"),
    Column::new("ISOLATION"),
    Column::new("FREE"),
    Column::number("NUMA"),
    Column::number("CELSIUS"),
    Column::number("WATTS"),
];
const LAST: Column = Column::new("PODS");

pub fn table(view: &View, wide: bool) -> Shown {
    let mut table = Table::new(COLUMNS.into_iter().chain(WIDE.into_iter().filter(|_| wide)).chain([LAST]));
    let gpus = view.nodes.iter().flat_map(|node| node.gpus.iter().map(move |gpu| (&node.name, gpu)));
    let mut found = false;
    for (node, gpu) in gpus {
        found = true;
        let more = if wide { details(gpu).to_vec() } else { Vec::new() };
        table.row(cells(node, gpu).into_iter().chain(more).chain([pods(gpu)]));
    }
    let below = if found { sums(&view.totals) } else { "no node has GPUs".to_owned() };
    Shown { table, below: vec![below], found }
}

fn cells(node: &str, gpu: &Gpu) -> [String; 8] {
    let used = gpu.used.unwrap_or_default();
    let known = |text: fn(u64) -> String, amount: Option<u64>| amount.map_or_else(|| UNKNOWN.to_owned(), text);
    [
        node.to_owned(),
        gpu.index.to_string(),
        gpu.model.clone(),
        state(gpu).to_owned(),
        percent(gpu.granted.compute),
        known(percent, used.compute),
        format!("{}/{}", memory(gpu.granted.memory_mib), memory(gpu.memory_mib)),
        known(memory, used.memory_mib),
    ]
}

pub fn state(gpu: &Gpu) -> &'static str {
    match gpu.state {
        _ if gpu.overcommitted => "Overcommitted",
        GpuState::Ready => "Ready",
        GpuState::Unhealthy => "Unhealthy",
        GpuState::Cordoned => "Cordoned",
        GpuState::Closed => "Closed",
    }
}

fn details(gpu: &Gpu) -> [String; 6] {
    let used = gpu.used.unwrap_or_default();
    let number = |value: Option<f64>| value.map_or_else(|| NONE.to_owned(), |value| format!("{value:.0}"));
    [
        gpu.uuid.clone(),
        gpu.isolation.to_owned(),
        share(gpu.free),
        gpu.numa.map_or_else(|| UNKNOWN.to_owned(), |numa| numa.to_string()),
        number(used.temperature_celsius),
        number(used.power_watts),
    ]
}

/// Who holds how much, and what it is offered as.
fn pods(gpu: &Gpu) -> String {
    let mut holders: Vec<String> = gpu.holders.iter().map(holder).collect();
    let offers =
        gpu.offers.iter().map(|(name, offer)| format!("({name}: {} of {} free)", offer.free, offer.per_gpu));
    holders.extend(offers);
    if holders.is_empty() { NONE.to_owned() } else { holders.join(", ") }
}

fn holder(holder: &Holder) -> String {
    let Holder { namespace, pod, container, .. } = holder;
    let amount = match &holder.shares {
        Some(shares) => format!("{} x {}", shares.count, shares.resource),
        None if holder.whole => "whole".to_owned(),
        None => share(holder.granted),
    };
    let certain = if holder.certain { "" } else { " (GPU unknown)" };
    format!("{namespace}/{pod} {container} {amount}{certain}")
}
