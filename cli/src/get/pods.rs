//! `kerf get pods`

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::bail;
use k8s_openapi::jiff::Timestamp;

use super::filter::Gpus;
use super::shown::Shown;
use crate::amounts::{NONE, UNKNOWN, count, gpus, memory, percent, share, used_compute, used_memory};
use crate::table::{Column, Table};
use crate::view::{Amount, Asked, ContainerUse, Pod, PodState, View};

#[derive(Debug, clap::Args)]
pub struct PodsArgs {
    /// Only this pod, as NAME or NAMESPACE/NAME
    name: Option<String>,
    /// Pods of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    #[command(flatten)]
    only: Gpus,
    /// Only pods that use less than this part of the compute or of the memory that they were granted, in percent
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, default_missing_value = "50", require_equals = true,
          value_parser = clap::value_parser!(u64).range(1..=100))]
    underused: Option<u64>,
}

const NAMESPACE: Column = Column::name("NAMESPACE");
const COLUMNS: [Column; 9] = [
    Column::name("NAME"),
    Column::new("STATUS"),
    Column::name("NODE"),
    Column::new("GPU"),
    Column::number("COMPUTE"),
    Column::number("USED"),
    Column::number("MEMORY"),
    Column::number("USED"),
    Column::number("AGE"),
];
const WIDE: [Column; 4] =
    [Column::name("OWNER"), Column::new("ISOLATION"), Column::new("POLICY"), Column::name("CONTAINERS")];
const LAST: Column = Column::new("WHY IT WAITS");

/// Pods that the filters leave out, for a hint.
pub struct Others {
    /// In other namespaces.
    elsewhere: usize,
    /// Of which it is not known what they use.
    unmeasured: usize,
    namespace: Option<String>,
}

impl PodsArgs {
    /// Removes all pods that were not asked for; `namespace` is the one that is meant where none is named.
    pub fn keep(&self, view: &mut View, namespace: Option<&str>) -> anyhow::Result<Others> {
        let (namespace, name) = match self.name.as_deref().map(|name| (name, name.split_once('/'))) {
            Some((_, Some((namespace, name)))) => (Some(namespace), Some(name)),
            Some((name, None)) => (namespace, Some(name)),
            None => (namespace, None),
        };
        let namespace = namespace.filter(|_| !self.all_namespaces);
        if !self.only.is_all() {
            self.on_gpus(view)?;
        }
        let named = |pod: &Pod| name.is_none_or(|name| pod.name == name);
        view.pods.retain(named);
        let all = view.pods.len();
        view.pods.retain(|pod| namespace.is_none_or(|namespace| pod.namespace == namespace));
        let mut others =
            Others { elsewhere: all - view.pods.len(), unmeasured: 0, namespace: namespace.map(str::to_owned) };
        if let Some(name) = name.filter(|_| view.pods.is_empty()) {
            let place = namespace.map_or_else(|| "any namespace".to_owned(), |own| format!("namespace {own}"));
            bail!("no pod {name:?} in {place} asks for GPUs: see kerf get pods --all-namespaces");
        }
        if let Some(percent) = self.underused {
            let holds = |pod: &Pod| matches!(pod.state, PodState::Placed | PodState::Running);
            view.pods.retain(holds);
            others.unmeasured = view.pods.iter().filter(|pod| pod.used.is_none()).count();
            view.pods.retain(|pod| pod.used.is_some_and(|used| is_below(used, pod.granted, percent)));
        }
        view.count_again();
        Ok(others)
    }

    /// Keeps the pods that hold one of these GPUs, or may, with what they hold of those alone.
    fn on_gpus(&self, view: &mut View) -> anyhow::Result<()> {
        self.only.keep(view)?;
        let gpus = || view.nodes.iter().flat_map(|node| &node.gpus);
        let uuids: BTreeSet<String> = gpus().map(|gpu| gpu.uuid.clone()).collect();
        let uids: BTreeSet<String> = gpus().flat_map(|gpu| &gpu.holders).map(|holder| holder.uid.clone()).collect();
        view.pods.retain(|pod| uids.contains(&pod.uid));
        for pod in view.pods.iter_mut().filter(|_| self.only.gpu.is_some()) {
            for container in &mut pod.containers {
                container.gpus.retain(|grant| uuids.contains(&grant.uuid));
            }
            pod.count_again();
        }
        Ok(())
    }
}

/// Whether either of what is used is below this part of what was granted.
fn is_below(used: ContainerUse, granted: Amount, percent: u64) -> bool {
    let below = |used: Option<u64>, granted: u64| {
        granted > 0 && used.is_some_and(|used| used.saturating_mul(100) < granted.saturating_mul(percent))
    };
    below(used.compute, granted.compute) || below(used.memory_mib, granted.memory_mib)
}

pub fn table(view: &View, args: &PodsArgs, now: Duration, wide: bool, others: Others) -> Shown {
    let with_namespace = others.namespace.is_none();
    let waits = view.pods.iter().any(|pod| !why(pod).is_empty());
    let columns = std::iter::once(NAMESPACE).filter(|_| with_namespace).chain(COLUMNS);
    let columns = columns.chain(WIDE.into_iter().filter(|_| wide)).chain(std::iter::once(LAST).filter(|_| waits));
    let mut table = Table::new(columns);
    for pod in &view.pods {
        let first = std::iter::once(pod.namespace.clone()).filter(|_| with_namespace);
        let more = if wide { details(pod).to_vec() } else { Vec::new() };
        let last = std::iter::once(why(pod)).filter(|_| waits);
        table.row(first.chain(cells(pod, now)).chain(more).chain(last));
    }
    let found = !view.pods.is_empty();
    let mut below = vec![sums(view)];
    if !found {
        below = vec![nothing(args, &others)];
    } else if others.elsewhere > 0 {
        below.push(format!("{} more in other namespaces: --all-namespaces", others.elsewhere));
    }
    if others.unmeasured > 0 {
        below.push(format!("of {} it is not known what they use", count(others.unmeasured as u64, "pod")));
    }
    // that nobody wastes anything is an answer
    Shown { table, below, found: found || args.underused.is_some() }
}

fn nothing(args: &PodsArgs, others: &Others) -> String {
    let place = match &others.namespace {
        Some(namespace) => format!(" in namespace {namespace}"),
        None => String::new(),
    };
    let what = match args {
        PodsArgs { underused: Some(percent), .. } => format!("uses less than {percent}% of what it was granted"),
        PodsArgs { only, .. } if !only.is_all() => "holds such a GPU".to_owned(),
        _ => "asks for GPUs".to_owned(),
    };
    let more = if others.elsewhere > 0 {
        format!(" ({} in other namespaces: --all-namespaces)", others.elsewhere)
    } else {
        String::new()
    };
    format!("no pod{place} {what}{more}")
}

fn sums(view: &View) -> String {
    let (totals, granted) = (&view.totals, view.pods.iter().map(|pod| pod.granted).sum::<Amount>());
    let mut line = count(view.pods.len() as u64, "pod");
    if totals.holding_pods > 0 {
        line += &format!(
            "; {} {} {} and {}",
            totals.holding_pods,
            if totals.holding_pods == 1 { "holds" } else { "hold" },
            count_gpus(granted.compute),
            memory(granted.memory_mib)
        );
    }
    if totals.waiting_pods > 0 {
        let wait = if totals.waiting_pods == 1 { "waits" } else { "wait" };
        line += &format!("; {} {wait}: kerf explain pod says why", totals.waiting_pods);
    }
    line
}

fn count_gpus(compute: u64) -> String {
    if compute == 1000 { "1 GPU".to_owned() } else { format!("{} GPUs", gpus(compute)) }
}

fn cells(pod: &Pod, now: Duration) -> [String; 9] {
    let holds = pod.counted_by.is_some();
    let (compute, mib) = match holds && pod.counted_by == Some("record") {
        true => (percent(pod.granted.compute), memory(pod.granted.memory_mib)),
        false => asked(pod),
    };
    let used = |text: String| if holds { text } else { NONE.to_owned() };
    [
        pod.name.clone(),
        pod.status.clone(),
        pod.node.clone().unwrap_or_else(|| NONE.to_owned()),
        indices(pod),
        compute,
        used(used_compute(pod.used)),
        mib,
        used(used_memory(pod.used)),
        age(pod, now),
    ]
}

/// What it asks for, over all containers.
fn asked(pod: &Pod) -> (String, String) {
    let sum: Amount = pod
        .containers
        .iter()
        .map(|own| Amount { compute: own.asks.compute, memory_mib: own.asks.memory_mib.unwrap_or_default() })
        .sum();
    let shares = pod.containers.iter().filter_map(|own| own.asks.shares.as_ref());
    let shares: Vec<String> = shares.map(|own| format!("{} x {}", own.count, own.resource)).collect();
    let compute = match (sum.compute, shares.is_empty()) {
        (0, true) => UNKNOWN.to_owned(),
        (0, false) => shares.join(", "),
        (compute, _) => percent(compute),
    };
    (compute, if sum.memory_mib > 0 { memory(sum.memory_mib) } else { NONE.to_owned() })
}

/// The GPUs that it has, by index.
fn indices(pod: &Pod) -> String {
    let mut indices: Vec<u32> = pod.containers.iter().flat_map(|own| &own.gpus).map(|grant| grant.index).collect();
    indices.sort_unstable();
    indices.dedup();
    match pod.counted_by {
        None => NONE.to_owned(),
        Some(_) if indices.is_empty() => UNKNOWN.to_owned(),
        Some(_) => indices.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
    }
}

/// In the largest unit, as kubectl has it.
fn age(pod: &Pod, now: Duration) -> String {
    let created = pod.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    let Some(created) = created.and_then(|time| u64::try_from(time.as_second()).ok()) else {
        return UNKNOWN.to_owned();
    };
    let seconds = now.as_secs().saturating_sub(created);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn details(pod: &Pod) -> [String; 4] {
    let or_none = |text: Option<&str>| text.unwrap_or(NONE).to_owned();
    let mut levels: Vec<&str> = pod.containers.iter().filter_map(|own| own.isolation).collect();
    levels.dedup();
    let containers = pod.containers.iter().map(|own| {
        let on: Vec<String> =
            own.gpus.iter().map(|grant| format!("{}: {}", grant.index, share(grant.granted))).collect();
        format!("{} {}", own.name, if on.is_empty() { asks(&own.asks) } else { on.join(", ") })
    });
    [
        or_none(pod.owner.as_deref()),
        if levels.is_empty() { NONE.to_owned() } else { levels.join(",") },
        or_none(pod.policy),
        containers.collect::<Vec<_>>().join("; "),
    ]
}

fn asks(asked: &Asked) -> String {
    match asked {
        Asked { shares: Some(shares), .. } => format!("{} x {}", shares.count, shares.resource),
        Asked { whole_gpus: 1.., .. } => count(asked.whole_gpus.into(), "whole GPU"),
        _ => share(Amount { compute: asked.compute, memory_mib: asked.memory_mib.unwrap_or_default() }),
    }
}

/// Why it waits, or what its node said when it failed.
fn why(pod: &Pod) -> String {
    let message = || match (&pod.waiting, &pod.message) {
        (Some(waiting), _) if waiting.message.is_empty() => "the scheduler has not tried it yet".to_owned(),
        (Some(waiting), _) => waiting.message.clone(),
        (None, message) => message.clone().unwrap_or_default(),
    };
    match (&pod.refused, pod.state) {
        (Some(rule), PodState::Waiting) => format!("refused everywhere: {rule}"),
        _ => message(),
    }
}
