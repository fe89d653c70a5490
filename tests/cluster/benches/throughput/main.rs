//! How many GPU pods a second a real kube-scheduler binds, on a real API server and etcd, with kerf's extender and
//! without any. The Nodes are objects only. 1,000 and 5,000 nodes of 8 GPUs, 2,000 pods created at once, in turns.
//!
//! `cargo bench -p kerf-cluster --bench throughput`: needs what `tests/cluster/setup.sh` gets; prints a table, and
//! writes every single measurement to a file in the folder named by `KERF_BENCH_RAW`, if set. `KERF_ROUNDS` is how
//! often each case is run (5), `KERF_NODES` the numbers of nodes, joined by commas. `KERF_PROFILE` names a folder for
//! processor profiles, which cost some of the speed. Under `cargo test` everything is small and unmeasured, and left
//! out where the programs are missing.

mod profile;
mod report;
mod run;
mod workload;

use anyhow::Context;
use kerf_bench_support::figures;
use kerf_cluster::programs::Programs;
use kerf_cluster::tools::Tools;
use report::Report;
use run::Case;

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
    let (sizes, pods, rounds) = if test {
        (vec![20], 60, 1)
    } else {
        (wished("KERF_NODES", &[1_000, 5_000])?, 2_000, wished("KERF_ROUNDS", &[5])?.iter().sum())
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let mut report = Report::default();
    for nodes in sizes {
        for round in 0..rounds {
            // the second case finds the machine as the first one left it
            for kerf in if round % 2 == 0 { [false, true] } else { [true, false] } {
                let case = Case { nodes, kerf, pods, round };
                let run = runtime.block_on(run::run(&tools, &programs, case))?;
                eprintln!("{case}: {run}");
                report.add(case, &run);
            }
        }
    }
    report.finish(test)
}

/// Numbers from the environment, or the default.
fn wished(name: &str, otherwise: &[usize]) -> anyhow::Result<Vec<usize>> {
    match std::env::var(name) {
        Ok(list) => {
            list.split(',').map(|number| number.parse().with_context(|| format!("{name}={list}"))).collect()
        }
        Err(_) => Ok(otherwise.to_vec()),
    }
}
