//! Nodes and pods from CSV files with the columns of Alibaba's GPU trace (cluster-trace-gpu-v2023): nodes
//! `sn,cpu_milli,memory_mib,gpu,model`, pods `name,cpu_milli,memory_mib,num_gpu,gpu_milli,...`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;

use crate::stack::MachineSpec;
use crate::workload;

/// Memory of every GPU, in MiB: it is not in the trace, so a share's memory is its part of this.
pub const CARD_MIB: u64 = 16_384;
const UNITS: u64 = CARD_MIB / 256;

/// A row of the nodes' file.
#[derive(Deserialize)]
pub struct NodeRow {
    /// Name of the node.
    pub sn: String,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Host memory, in MiB.
    pub memory_mib: u64,
    /// Number of GPUs.
    pub gpu: usize,
    /// Model of its GPUs.
    pub model: String,
}

/// A row of the pods' file.
#[derive(Deserialize)]
pub struct PodRow {
    /// Name of the pod.
    pub name: String,
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Host memory, in MiB.
    pub memory_mib: u64,
    /// Number of GPUs.
    pub num_gpu: u64,
    /// Thousandths of each GPU.
    pub gpu_milli: u64,
}

/// A part of a trace.
pub struct Trace {
    /// The first machines with GPUs: enough for the pods and a quarter more.
    pub machines: Vec<MachineSpec>,
    /// The first pods that request GPUs, as objects.
    pub pods: Vec<Value>,
    /// The number of pods without GPUs that were left out.
    pub without_gpu: usize,
}

/// Reads the first `limit` pods with GPUs, and machines for them.
pub fn read(nodes: &Path, pods: &Path, limit: usize) -> anyhow::Result<Trace> {
    let mut trace = Trace { machines: Vec::new(), pods: Vec::new(), without_gpu: 0 };
    let mut demand = 0;
    for (number, row) in rows::<PodRow>(pods)?.into_iter().enumerate() {
        if trace.pods.len() == limit {
            break;
        }
        let at = || format!("{}: line {}", pods.display(), number + 2);
        ensure!(row.num_gpu <= 8, "{}: num_gpu {} is not 0..=8", at(), row.num_gpu);
        ensure!(row.gpu_milli <= 1000, "{}: gpu_milli {} is not 0..=1000", at(), row.gpu_milli);
        let container = match (row.num_gpu, row.gpu_milli) {
            (0, _) => {
                trace.without_gpu += 1;
                continue;
            }
            (1, milli @ 1..1000) => {
                let core = milli.div_ceil(10).min(99);
                let memory = (core * UNITS / 100).max(1);
                workload::container("main", &core.to_string(), &memory.to_string())
            }
            (cards, _) => workload::container("main", &(cards * 100).to_string(), ""),
        };
        demand += row.num_gpu * row.gpu_milli;
        trace.pods.push(workload::pod(&row.name, vec![], vec![container]));
    }
    let mut cards = 0;
    for row in rows::<NodeRow>(nodes)?.into_iter().filter(|row| row.gpu > 0) {
        if cards * 1000 >= demand + demand / 4 && cards > 0 {
            break;
        }
        ensure!(row.gpu <= 64, "{}: node {} has {} GPUs", nodes.display(), row.sn, row.gpu);
        cards += row.gpu as u64;
        trace.machines.push(MachineSpec::equal(&row.sn, row.gpu, &row.model, CARD_MIB));
    }
    ensure!(!trace.pods.is_empty(), "{}: no pod asks for a GPU", pods.display());
    ensure!(cards * 1000 >= demand, "{}: too few GPUs for these pods", nodes.display());
    Ok(trace)
}

/// The two files of a trace folder: `openb_node_list_gpu_node.csv` and `openb_pod_list_default.csv`, compressed with
/// gzip or not.
pub fn files(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let find = |name: &str| {
        let candidates = [folder.join(name), folder.join("csv").join(name)];
        let packed = candidates.iter().map(|path| path.with_extension("csv.gz"));
        match candidates.iter().cloned().chain(packed).find(|path| path.is_file()) {
            Some(path) => Ok(path),
            None => bail!("{}: holds neither {name} nor {name}.gz", folder.display()),
        }
    };
    Ok((find("openb_node_list_gpu_node.csv")?, find("openb_pod_list_default.csv")?))
}

/// The rows of a CSV file, compressed with gzip or not.
pub fn rows<T: for<'a> Deserialize<'a>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let input: Box<dyn Read> = if path.extension().is_some_and(|end| end == "gz") {
        Box::new(GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    csv::Reader::from_reader(input)
        .into_deserialize()
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not of the trace's form", path.display()))
}
