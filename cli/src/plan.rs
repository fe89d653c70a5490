//! `kerf plan`

mod manifest;
mod planned;
mod text;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use kerf::annotation::Keys;
use kerf::ids::PodUid;
use kerf::policy::Policy;

use super::source::{Source, SourceArgs};
use super::unheeded::unheeded;
use crate::cluster::{Cluster, GpuPod, notes};
use crate::place::Trial;
use crate::print::say;
use manifest::Workload;
use planned::{Placed, Planned};

/// What to plan.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// Workloads (Pod, Deployment, StatefulSet, ReplicaSet, Job, CronJob), as YAML or JSON; one after the other, each where
    /// those before it are. Without any: the pods of the cluster that wait for a node
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<PathBuf>,
    /// How to choose: binpack, spread, best-fit, fgd or fragmentation; several, joined by commas, are compared
    #[arg(long, value_name = "POLICY,...", value_delimiter = ',', default_value = "binpack")]
    policy: Vec<Policy>,
    /// As if this pod had gone; may be given several times
    #[arg(long, value_name = "NAMESPACE/POD")]
    without: Vec<String>,
}

/// Prints where pods would go. Exit status 1 where one of them fits nowhere or breaks a rule.
///
/// # Errors
/// Where a file or the cluster cannot be read, or has no such pod.
pub fn run(
    args: &PlanArgs,
    from: &SourceArgs,
    keys: &Keys,
    as_json: bool,
    out: &mut String,
) -> anyhow::Result<ExitCode> {
    let (mut workloads, mut odd) = (Vec::new(), Vec::new());
    for path in &args.workloads {
        let (found, notes) = manifest::workloads(path)?;
        workloads.extend(found);
        odd.extend(notes);
    }
    let source = Source::open(from)?;
    let cluster = source.cluster(keys)?;
    odd.extend(cluster.note());
    if args.workloads.is_empty() {
        workloads = waiting(&cluster);
        if workloads.is_empty() {
            odd.push("no pod of the cluster that asks for GPUs waits for a node: name a workload".to_owned());
        }
    } else {
        odd.extend(workloads.iter().flat_map(|workload| unheeded(&workload.pod)));
    }
    for (node, known) in &cluster.nodes {
        odd.extend(notes(&known.ledger).into_iter().map(|note| format!("{node}: {note}")));
    }
    let mut seen = BTreeSet::new();
    odd.retain(|note| seen.insert(note.clone()));
    let mut trial = Trial::of(&cluster);
    for name in &args.without {
        let uid = gone(name, &cluster, &source, from)?;
        trial.take_out(&uid);
    }
    let plans: Vec<Planned> =
        args.policy.iter().map(|policy| Planned::of(&workloads, *policy, trial.clone(), keys)).collect();
    if as_json {
        out.push_str(&(serde_json::to_string_pretty(&text::json(&plans, &odd))? + "\n"));
    } else {
        text::text(&plans, out);
        odd.iter().for_each(|note| say(out, &format!("! {note}")));
    }
    let all_fit = plans.iter().all(|plan| plan.workloads.iter().all(Placed::fits));
    Ok(if all_fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The pods that wait, in the order in which kube-scheduler takes them: by priority, then by age.
fn waiting(cluster: &Cluster) -> Vec<Workload> {
    let mut pods: Vec<_> = cluster.pods.iter().filter(|pod| pod.view.node.is_none() && !pod.view.ended).collect();
    pods.sort_by_key(|pod| {
        let priority = pod.object.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
        (Reverse(priority), pod.object.metadata.creation_timestamp.as_ref().map(|time| time.0))
    });
    let workload = |pod: &&GpuPod| Workload {
        name: format!("Pod {}", pod.view.pod),
        pods: 1,
        pod: pod.object.clone(),
        is_pod: true,
    };
    pods.iter().map(workload).collect()
}

/// The uid of a pod that is to go.
fn gone(name: &str, cluster: &Cluster, source: &Source, from: &SourceArgs) -> anyhow::Result<PodUid> {
    let of_context = source.namespace(from);
    let (namespace, pod) = name.split_once('/').unwrap_or((of_context.as_deref().unwrap_or("default"), name));
    let known = cluster.pod(namespace, pod);
    let known = known.with_context(|| format!("--without {name}: no pod {namespace}/{pod} asks for GPUs"))?;
    Ok(known.view.uid.clone())
}
