//! How many GPU pods a second a real kube-scheduler binds, on a real API server and etcd, with kerf and
//! without. The Nodes are objects only. 1,000 and 5,000 nodes of 8 GPUs, 2,000 pods created at once, in turns.
//!
//! `cargo bench -p kerf-cluster --bench throughput`: needs what `tests/cluster/setup.sh` gets; prints a table, and
//! writes every single measurement to a file in the folder named by `KERF_BENCH_RAW`, if set. From the environment, lists joined
//! by commas:
//!
//! * `KERF_ROUNDS`: how often each case is run (5). `KERF_NODES`: the numbers of nodes.
//! * `KERF_SETUPS`: what schedules ([`Setup`]). `KERF_WORKLOAD`: the pods ([`Workload`]).
//! * `KERF_PROFILE`: a folder for processor profiles, which cost some of the speed.
//!
//! Under `cargo test` everything is small and unmeasured, and left out where the programs are missing.

mod profile;
mod report;
mod run;
mod setup;
mod workload;

use std::str::FromStr;

use anyhow::Context;
use kerf_bench_support::figures;
use kerf_cluster::programs::Programs;
use kerf_cluster::tools::Tools;
use report::Report;
use run::Case;
use setup::Setup;
use workload::Workload;

fn main() -> anyhow::Result<()> {
    let test = figures::only_a_test();
    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(error) if test && std::env::var("KERF_CLUSTER").unwrap_or_default() != "required" => {
            println!("!!! NOT RUN: throughput. {error:#}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let programs = Programs::build(!test)?;
    let (sizes, rounds) = if test {
        (vec![20], 1)
    } else {
        (wished("KERF_NODES", vec![1_000, 5_000])?, wished("KERF_ROUNDS", vec![5_usize])?.iter().sum())
    };
    let plans = if test {
        vec![
            (Workload::Mixed, vec![Setup::None, Setup::Kerf, Setup::Bundled]),
            (Workload::Scarce, vec![Setup::Sampled, Setup::All]),
        ]
    } else {
        let setups = wished("KERF_SETUPS", vec![Setup::None, Setup::Bundled])?;
        let workloads = wished("KERF_WORKLOAD", vec![Workload::Mixed])?;
        workloads.into_iter().map(|workload| (workload, setups.clone())).collect()
    };
    let runtime = tokio::runtime::Runtime::new()?;
    for (workload, setups) in plans {
        let mut report = Report::new(setups.clone());
        for nodes in sizes.iter().copied() {
            for round in 0..rounds {
                // each finds the machine as another one left it
                for setup in setups.iter().copied().cycle().skip(round).take(setups.len()) {
                    let case = Case { nodes, setup, workload, pods: workload.pods(nodes, test), round };
                    let run = runtime.block_on(run::run(&tools, &programs, case))?;
                    eprintln!("{case}: {run}");
                    report.add(case, &run);
                }
            }
        }
        report.finish(workload.table(), test)?;
    }
    Ok(())
}

/// A list from the environment, or the default.
fn wished<T: FromStr<Err: Into<anyhow::Error>>>(name: &str, otherwise: Vec<T>) -> anyhow::Result<Vec<T>> {
    let Ok(list) = std::env::var(name) else { return Ok(otherwise) };
    let parse = |word: &str| word.parse().map_err(Into::into).with_context(|| format!("{name}={list}"));
    list.split(',').map(parse).collect()
}
