//! One run: a fresh control plane, Nodes, pods, and the time to bind them.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kerf_bench_support::{memory, objects};
use kerf_cluster::bare::Bare;
use kerf_cluster::process::Process;
use kerf_cluster::programs::Programs;
use kerf_cluster::samples::{quantile, sum};
use kerf_cluster::tools::Tools;
use kerf_cluster::wait::until;
use kube::api::PostParams;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use crate::setup::Setup;
use crate::workload::Workload;
use crate::{profile, workload};

/// Concurrent requests, as many as `scheduler_perf` has when it creates pods.
const AT_ONCE: usize = 30;

/// The longest time of a run.
const LIMIT: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub nodes: usize,
    pub setup: Setup,
    pub workload: Workload,
    /// Those that are measured.
    pub pods: usize,
    pub round: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nodes, {}, {}, round {}", self.nodes, self.workload, self.setup, self.round)
    }
}

/// The measurements of a run.
#[derive(Debug)]
pub struct Run {
    /// Pods seen bound in each second, from the first second with one: `scheduler_perf`'s SchedulingThroughput.
    pub throughput: Vec<f64>,
    /// All pods by the time from the first one's creation to the last one's binding.
    pub pods_per_second: f64,
    /// All other measurements: name, unit, value.
    pub figures: Vec<(String, &'static str, f64)>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} pods/s", self.pods_per_second)?;
        self.figures.iter().try_for_each(|(name, unit, value)| write!(f, ", {name} {value:.3} {unit}"))
    }
}

pub async fn run(tools: &Tools, programs: &Programs, case: Case) -> anyhow::Result<Run> {
    let bare = Bare::up(tools, programs, case.setup.scheduling(), case.setup.flags()).await?;
    let run = tokio::time::timeout(LIMIT, measure(&bare, case)).await;
    let run = run.with_context(|| format!("{case} takes too long")).flatten();
    bare.down()?;
    run
}

async fn measure(bare: &Bare, case: Case) -> anyhow::Result<Run> {
    let occupied = case.workload.occupied(case.nodes);
    create_nodes(bare, case.workload, 0..occupied).await?;
    let occupants = case.workload.occupants(case.nodes);
    if occupants > 0 {
        let occupying = tokio::spawn(bound(bare.client.clone(), workload::OCCUPANT, occupants));
        create_pods(bare, occupants, workload::occupant).await?;
        occupying.await.context("watching")??;
        create_nodes(bare, case.workload, occupied..case.nodes).await?;
    }
    accepts(bare, case).await?;
    let before = Reading::take(bare).await?;
    let spent_before = spent(bare)?;
    // in a task of its own, so that creating pods does not delay it
    let watching = tokio::spawn(bound(bare.client.clone(), workload::LABEL, case.pods));
    let begun = Instant::now();
    let counting = async { watching.await.context("watching")? };
    let creating = create_pods(bare, case.pods, |number| case.workload.pod(number));
    let profile = format!("{}-{}-{}", case.nodes, case.setup, case.round);
    let (created, bound, ()) = tokio::try_join!(creating, counting, profile::take(bare, &profile))?;
    let last = bound.last().copied().context("no pod was bound")?;
    let spent_after = spent(bare)?;
    let after = Reading::take(bare).await?;

    let mut figures = Vec::new();
    let mut figure = |name: &str, unit, value: f64| figures.push((name.to_owned(), unit, value));
    figure("pods created after", "s", (created - begun).as_secs_f64());
    for (name, part) in [("half of the pods", 2), ("all pods", 1)] {
        if let Some(last) = (case.pods / part).checked_sub(1).and_then(|number| bound.get(number)) {
            figure(&format!("{name} bound after"), "s", (*last - begun).as_secs_f64());
        }
    }
    let pods = case.pods as f64;
    // since the scheduler's start, so they would count those before too
    if occupants == 0 {
        for part in [50, 90, 99] {
            let at =
                |name, labels: &[&str]| 1e3 * quantile(&after.scheduler, name, labels, f64::from(part) / 100.0);
            let attempt = at("scheduler_scheduling_attempt_duration_seconds", &["result=\"scheduled\""]);
            let pod = at("scheduler_pod_scheduling_sli_duration_seconds", &[]);
            figure(&format!("scheduling attempt p{part}"), "ms", attempt);
            figure(&format!("pod scheduling p{part}"), "ms", pod);
        }
    }
    for (name, labels) in [
        ("bindings", ["verb=\"POST\"", "resource=\"pods\"", "subresource=\"binding\""]),
        ("status patches", ["verb=\"PATCH\"", "resource=\"pods\"", "subresource=\"status\""]),
        ("pod patches", ["verb=\"PATCH\"", "resource=\"pods\"", "subresource=\"\""]),
        ("pod reads", ["verb=\"GET\"", "resource=\"pods\"", "subresource=\"\""]),
        ("events", ["verb=\"POST\"", "resource=\"events\"", "subresource=\"\""]),
    ] {
        let count = |reading: &Reading| sum(&reading.api, "apiserver_request_total", &labels);
        figure(&format!("API {name} per pod"), "requests", (count(&after) - count(&before)) / pods);
    }
    let attempts = |reading: &Reading| sum(&reading.scheduler, "scheduler_schedule_attempts_total", &[]);
    let attempts = attempts(&after) - attempts(&before);
    figure("scheduling attempts per pod", "attempts", attempts / pods);
    for ((name, before), (_, after)) in spent_before.iter().zip(&spent_after) {
        figure(&format!("CPU of {name} per pod"), "ms", 1e3 * (after - before) / pods);
    }
    if let Some(extender) = &bare.extender {
        figure("memory of kerf-extender, highest", "MiB", memory::resident_mib(extender.pid()?)?.1);
        let name = "kerf_extender_request_duration_seconds";
        for verb in ["filter", "prioritize", "bind"] {
            let label = format!("verb=\"{verb}\"");
            let count = |reading: &Reading, part| sum(&reading.extender, &format!("{name}_{part}"), &[&label]);
            let added = |part| count(&after, part) - count(&before, part);
            figure(&format!("kerf-extender {verb}, mean"), "ms", 1e3 * added("sum") / added("count"));
            figure(&format!("kerf-extender {verb} per pod"), "calls", added("count") / pods);
        }
    }
    Ok(Run { throughput: throughput(&bound), pods_per_second: pods / (last - begun).as_secs_f64(), figures })
}

/// The metrics of all programs at one moment.
struct Reading {
    scheduler: String,
    api: String,
    extender: String,
}

impl Reading {
    async fn take(bare: &Bare) -> anyhow::Result<Self> {
        Ok(Self {
            scheduler: bare.scheduler_metrics().await?,
            api: bare.api_metrics().await?,
            extender: bare.extender_metrics().await?,
        })
    }
}

/// Seconds of processor time by program. Not read together with the rest, since reading costs time as well.
fn spent(bare: &Bare) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let control = &bare.control;
    let mut spent = vec![
        ("kube-scheduler", seconds(bare.scheduler().0)?),
        ("kube-apiserver", seconds(&control.api)?),
        ("etcd", seconds(&control.etcd)?),
    ];
    if let Some(extender) = &bare.extender {
        spent.push(("kerf-extender", seconds(extender)?));
    }
    if bare.own_scheduler.is_some() {
        spent.push(("the cluster's own kube-scheduler", seconds(&control.scheduler)?));
    }
    Ok(spent)
}

/// Processor time that a process has used so far, in its own code and in the kernel's, in seconds.
fn seconds(process: &Process) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid()?))?;
    // the name, in brackets, may contain blanks
    let fields = stat.rsplit_once(") ").context("stat has another form")?.1;
    let ticks: f64 = fields.split(' ').skip(11).take(2).map(|field| field.parse().unwrap_or(0.0)).sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// Creates the nodes of these numbers; those before exist.
async fn create_nodes(bare: &Bare, workload: Workload, numbers: Range<usize>) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(bare.client.clone());
    let count = numbers.end;
    stream::iter(numbers)
        .map(async |number| {
            let node: Node = serde_json::from_value(objects::node(number, workload.cards()))?;
            nodes.create(&PostParams::default(), &node).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    until(Duration::from_secs(60), "everybody knows all nodes", async || {
        let known = sum(&bare.scheduler_metrics().await?, "scheduler_cache_size", &["type=\"nodes\""]);
        ensure!(known == count as f64, "the scheduler knows {known} of {count}");
        if bare.extender.is_some() {
            let known = sum(&bare.extender_metrics().await?, "kerf_extender_nodes", &[]);
            ensure!(known == count as f64, "the extender knows {known} of {count}");
        }
        Ok(())
    })
    .await
}

/// Waits until the API server takes such a pod. The first one that a policy changes takes it a second: only then it reads the
/// schema of pods.
async fn accepts(bare: &Bare, case: Case) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(bare.client.clone());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let pod: Pod = serde_json::from_value(case.workload.pod(case.pods))?;
    until(Duration::from_secs(60), "pods come to the scheduler", async || {
        let scheduler = pods.create(&dry, &pod).await?.spec.and_then(|spec| spec.scheduler_name);
        let own = scheduler.as_deref() == Some("kerf-scheduler");
        ensure!(own == bare.own_scheduler.is_some(), "they come to {scheduler:?}");
        Ok(())
    })
    .await
}

/// Returns when the last one was created.
async fn create_pods(bare: &Bare, count: usize, made: impl Fn(usize) -> Value) -> anyhow::Result<Instant> {
    let pods: Api<Pod> = Api::default_namespaced(bare.client.clone());
    stream::iter(0..count)
        .map(async |number| {
            let pod: Pod = serde_json::from_value(made(number))?;
            pods.create(&PostParams::default(), &pod).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(Instant::now())
}

/// The moments at which pods with this label are seen bound: a watch of names only, of pods that have a node.
async fn bound(client: Client, label: &str, count: usize) -> anyhow::Result<Vec<Instant>> {
    let pods: Api<PartialObjectMeta<Pod>> = Api::default_namespaced(client);
    let selection = Config::default().fields("spec.nodeName!=").labels(label);
    let mut events = std::pin::pin!(watcher(pods, selection).default_backoff());
    let (mut names, mut moments) = (HashSet::new(), Vec::with_capacity(count));
    while moments.len() < count {
        // a watch that ended is resumed
        match events.next().await.context("the watch of pods ended")? {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) if names.insert(pod.name_any()) => {
                moments.push(Instant::now());
            }
            _ => {}
        }
    }
    Ok(moments)
}

/// Pods bound in each whole second after the first second with one; a second without any counts with the next one
/// (`test/integration/scheduler_perf/util.go`, `throughputCollector`).
fn throughput(bound: &[Instant]) -> Vec<f64> {
    const SECOND: Duration = Duration::from_secs(1);
    let (Some(first), Some(last)) = (bound.first(), bound.last()) else { return Vec::new() };
    let mut rates = Vec::new();
    let (mut from, mut seconds) = (*first + SECOND, 1u32);
    while from + SECOND * seconds <= *last {
        let to = from + SECOND * seconds;
        let count = bound.iter().filter(|moment| **moment > from && **moment <= to).count();
        if count == 0 {
            seconds += 1;
            continue;
        }
        let rate = count as f64 / f64::from(seconds);
        rates.extend(std::iter::repeat_n(rate, seconds as usize));
        (from, seconds) = (to, 1);
    }
    rates
}
