//! `kerf replay`

mod files;

use std::path::PathBuf;
use std::process::ExitCode;

use kerf::placement::Policy;
use kerf::placement::shape::Shape;
use kerf::replay::{Arrivals, Run, Workload, shuffle_and_fill, write_log};

#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    #[arg(long)]
    nodes: PathBuf,
    #[arg(long)]
    pods: PathBuf,
    #[arg(long)]
    trace: Option<PathBuf>,
    #[arg(long, value_delimiter = ',')]
    policy: Vec<Policy>,
    #[arg(long)]
    foresight: bool,
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long)]
    log: Option<PathBuf>,
}

pub fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let machines = files::machines(&args.nodes)?;
    let pods = files::pods(&args.pods)?;
    let known: Vec<(Shape, u64)> = match &args.trace {
        Some(path) => files::pods(path)?.into_iter().map(|(p, n)| (p.shape, n)).collect(),
        None => pods.iter().map(|(p, n)| (p.shape.clone(), *n)).collect(),
    };
    let pods: Vec<_> = pods.into_iter().map(|(p, _)| p).collect();
    let workload = match args.seed {
        Some(seed) => shuffle_and_fill(&machines, &pods, 130, seed),
        None => Workload { machines, arrivals: Arrivals::in_order(pods) },
    };
    for policy in &args.policy {
        let told = (args.foresight || *policy == Policy::Fgd).then_some(known.as_slice());
        let begun = std::time::Instant::now();
        let out = Run::new(&workload, *policy, told, 0.0).finish();
        let t = begun.elapsed();
        println!("{policy} u95 {:.3} u100 {:.3} u130 {:.3} first {:?} failed {:?} {:?} {:.1} us/pod", out.curve.at(95).unwrap_or(0.0), out.curve.at(100).unwrap_or(0.0), out.curve.at(130).unwrap_or(0.0), out.first_failure, out.failed, t, t.as_secs_f64()*1e6/out.placed.len() as f64);
        if let Some(log) = &args.log {
            std::fs::write(log, write_log(&workload, &out))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
