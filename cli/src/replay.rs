//! `kerf replay`

mod files;
mod memory;
mod past;
mod plot;
mod seeds;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use kerf::annotation::Keys;
use kerf::placement::shape::Shape;
use kerf::policy::Policy;
use kerf::replay::{Arrivals, Machine, Outcome, Pod, Run, Workload, shuffle_and_fill, stream, write_log};
use rayon::prelude::*;

use super::print::print;
use super::source::{Source, SourceArgs};
use memory::CardMemory;
use seeds::Seeds;
use table::Runs;

/// More pods than any trace has: a bound on memory.
const MOST_PODS: u64 = 10_000_000;
/// A bound on the sum of a known demand, of which only the proportions count.
const MOST_KNOWN: u64 = 1 << 60;
/// In mean stays of a pod, far longer than averages need.
const MOST_STAYS: f64 = 10_000.0;

/// What to replay, and what to show of it: of the machines and pods of the cluster, or of files.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// Machines as CSV (or .csv.gz): sn, cpu_milli, memory_mib, gpu, model; optional gpu_memory_mib
    #[arg(long, value_name = "CSV", requires = "pods", conflicts_with = "file")]
    nodes: Option<PathBuf>,
    /// Pods as CSV (or .csv.gz): name, cpu_milli, memory_mib, num_gpu, gpu_milli; optional gpu_spec, gpu_memory_mib,
    /// creation_time, deletion_time
    #[arg(long, value_name = "CSV", requires = "nodes")]
    pods: Option<PathBuf>,
    /// Policies to compare: binpack, spread, best-fit, fgd, fragmentation
    #[arg(long, value_name = "POLICY,...", value_delimiter = ',', default_value = "binpack,fgd,fragmentation")]
    policy: Vec<Policy>,
    /// One run for each seed, such as 1-10: pods shuffled, then drawn until they ask for --demand. Without seeds, one
    /// run in the order of the file
    #[arg(long, value_name = "SEEDS")]
    seeds: Option<Seeds>,
    /// With --seeds: how much the pods shall ask for, in percent of the cluster
    #[arg(long, value_name = "PERCENT", default_value_t = 130, value_parser = clap::value_parser!(u64).range(1..=1000))]
    demand: u64,
    /// Pods come at creation_time and leave at deletion_time
    #[arg(long, conflicts_with = "seeds")]
    departures: bool,
    /// With --seeds: pods drawn from the file come and leave at random, so that those present would ask for this many
    /// times the cluster
    #[arg(long, value_name = "TIMES", requires = "seeds")]
    load: Option<f64>,
    /// With --load: how long, in mean stays of a pod
    #[arg(long, value_name = "STAYS", default_value_t = 12.0)]
    stays: f64,
    /// With --load: how long before averages begin, in mean stays of a pod
    #[arg(long, value_name = "STAYS", default_value_t = 4.0)]
    warm_up: f64,
    /// Which policies are told the demand in advance instead of learning it from the pods that come; fgd was published
    /// so
    #[arg(long, value_name = "POLICY,...", value_delimiter = ',', default_value = "fgd")]
    foresight: Vec<Policy>,
    /// The demand that they are told: pods as CSV, also with a column count; otherwise the pods that are replayed
    #[arg(long, value_name = "CSV")]
    known: Option<PathBuf>,
    /// Gives every GPU this much memory in MiB, such as 16384 or 16384,V100M32=32768, and every share a part of it
    /// that has nothing to do with its compute: the size of another share, drawn at random
    #[arg(long, value_name = "MIB")]
    derive_memory: Option<CardMemory>,
    /// Folder for a log of each run: POLICY-SEED.csv with the place of every pod
    #[arg(long, value_name = "FOLDER")]
    log: Option<PathBuf>,
    /// File for a plot of unallocated GPU against demand
    #[arg(long, value_name = "SVG")]
    plot: Option<PathBuf>,
    /// Runs at the same time; the outcome is the same for any number [default: one for each core]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// Replays the workload and shows the outcome.
pub fn run(args: &ReplayArgs, from: &SourceArgs, keys: &Keys, as_json: bool) -> anyhow::Result<ExitCode> {
    let (mut machines, mut pods) = read(args, from, keys)?;
    if let Some(memory) = &args.derive_memory {
        memory.derive(&mut machines, &mut pods, 1)?;
    }
    bounded(args, &machines, &pods)?;
    let known: Vec<(Shape, u64)> = match &args.known {
        Some(path) => files::pods(path, MOST_KNOWN)?.into_iter().map(|(pod, count)| (pod.shape, count)).collect(),
        None => pods.iter().map(|pod| (pod.shape.clone(), 1)).collect(),
    };
    let seeds: Vec<Option<u64>> = match &args.seeds {
        Some(Seeds(seeds)) => seeds.iter().copied().map(Some).collect(),
        None => vec![None],
    };
    let jobs: Vec<(Policy, Option<u64>)> =
        args.policy.iter().flat_map(|policy| seeds.iter().map(|seed| (*policy, *seed))).collect();
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{elapsed} {wide_bar} {percent} % of {len} events, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let each = |(policy, seed): (Policy, Option<u64>)| -> anyhow::Result<Outcome> {
        let workload = arrivals(args, &machines, &pods, seed);
        let told = args.foresight.contains(&policy).then_some(known.as_slice());
        let warm_up = if args.load.is_some() { args.warm_up * 3600.0 } else { 0.0 };
        let outcome = go(Run::new(&workload, policy, told, warm_up), &bar);
        if let Some(folder) = &args.log {
            let name = seed.map_or("in-order".into(), |seed| seed.to_string());
            let path = folder.join(format!("{policy}-{name}.csv"));
            std::fs::write(&path, write_log(&workload, &outcome)).with_context(|| path.display().to_string())?;
        }
        Ok(outcome)
    };
    if let Some(folder) = &args.log {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut outcomes = side_by_side(jobs, args.threads, each)?.into_iter();
    bar.finish_and_clear();
    let runs = |policy: &Policy| Runs {
        policy: *policy,
        outcomes: seeds.iter().copied().zip(outcomes.by_ref()).collect(),
    };
    let all: Vec<Runs> = args.policy.iter().map(runs).collect();
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::svg(&all)).with_context(|| path.display().to_string())?;
    }
    if as_json {
        print(&format!("{}\n", serde_json::to_string_pretty(&table::json(&all))?))?;
    } else {
        print(&table::table(&all))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The outcome of each job, in order. Of several that fail, the first one's error.
fn side_by_side<J: Send, T: Send>(
    jobs: Vec<J>,
    threads: Option<u16>,
    each: impl Fn(J) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.map_or_else(cores, usize::from).min(jobs.len()).max(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    // the first of those that have failed so far; later ones need not be done any more
    let failed = AtomicUsize::new(usize::MAX);
    let one = |(at, job): (usize, J)| {
        (at < failed.load(Ordering::Relaxed)).then(|| {
            let done = each(job);
            if done.is_err() {
                failed.fetch_min(at, Ordering::Relaxed);
            }
            done
        })
    };
    let done: Vec<Option<anyhow::Result<T>>> = pool.install(|| jobs.into_par_iter().enumerate().map(one).collect());
    done.into_iter().flatten().collect()
}

/// Refuses what no run would come to an end of.
#[allow(clippy::cast_precision_loss, reason = "far below 2^53, and an estimate")]
fn bounded(args: &ReplayArgs, machines: &[Machine], pods: &[Pod]) -> anyhow::Result<()> {
    ensure!(args.load.is_none_or(|load| load > 0.0 && load <= 100.0), "--load is not above 0 and at most 100");
    ensure!(args.stays > 0.0 && args.stays <= MOST_STAYS, "--stays is not above 0 and at most {MOST_STAYS}");
    let warms = (0.0..args.stays).contains(&args.warm_up) || args.load.is_none();
    ensure!(warms, "--warm-up is not at least 0 and shorter than --stays");
    let times = match (args.load, &args.seeds) {
        (Some(load), _) => load * args.stays,
        (None, Some(_)) => args.demand as f64 / 100.0,
        (None, None) => return Ok(()),
    };
    let capacity: u64 = machines.iter().map(Machine::compute).sum();
    let asked: u64 = pods.iter().map(|pod| pod.shape.cards.compute()).sum();
    let drawn = times * capacity as f64 * pods.len() as f64 / asked.max(1) as f64;
    // where no pod asks for a card, none is drawn
    ensure!(asked == 0 || drawn <= MOST_PODS as f64, "more than {MOST_PODS} pods would be drawn");
    Ok(())
}

fn read(args: &ReplayArgs, from: &SourceArgs, keys: &Keys) -> anyhow::Result<(Vec<Machine>, Vec<Pod>)> {
    match (&args.nodes, &args.pods) {
        (Some(nodes), Some(pods)) => {
            let machines = files::machines(nodes)?;
            let pods = files::pods(pods, MOST_PODS)?;
            // how many such pods there are
            let times = |(pod, count): (Pod, u64)| std::iter::repeat_n(pod, usize::try_from(count).unwrap_or(1));
            Ok((machines, pods.into_iter().flat_map(times).collect()))
        }
        _ => past::workload(&Source::open(from)?, keys),
    }
}

fn arrivals(args: &ReplayArgs, machines: &[Machine], pods: &[Pod], seed: Option<u64>) -> Workload {
    match (seed, args.load) {
        (Some(seed), Some(load)) => stream(machines, pods, load, args.stays, seed),
        (Some(seed), None) => shuffle_and_fill(machines, pods, args.demand, seed),
        (None, _) if args.departures => {
            Workload { machines: machines.to_vec(), arrivals: Arrivals::by_time(pods.to_vec()) }
        }
        (None, _) => Workload { machines: machines.to_vec(), arrivals: Arrivals::in_order(pods.to_vec()) },
    }
}

/// Runs to the end and updates the progress bar.
fn go(mut run: Run<'_>, bar: &ProgressBar) -> Outcome {
    bar.inc_length(run.progress().1 as u64);
    let mut told = 0;
    while run.step() {
        let done = run.progress().0;
        if done - told >= 1000 {
            bar.inc((done - told) as u64);
            told = done;
        }
    }
    bar.inc((run.progress().1 - told) as u64);
    run.finish()
}
