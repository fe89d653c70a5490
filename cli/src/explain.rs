//! `kerf explain`

mod answer;
mod gpus;
mod help;

use std::process::ExitCode;

use anyhow::Context;
use kerf::annotation::Keys;
use kerf::policy::Policy;

use super::print::say;
use super::source::{Source, SourceArgs};
use crate::output::{Document, document};
use crate::table::paragraph;
use answer::asks_for;

pub use answer::{Explanation, OfNode};

/// Nodes that are told of, of those that do not take the pod, unless all are asked for.
const TOLD: usize = 10;

#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Why a pod waits, or why it is where it is; what would help comes first
    #[command(visible_alias = "pods", alias = "po")]
    Pod {
        /// The pod, as NAME or NAMESPACE/NAME
        name: String,
        /// How kerf chooses, where the pod does not say: binpack, spread, best-fit, fgd or fragmentation
        #[arg(long, default_value_t)]
        policy: Policy,
        /// Of all nodes and GPUs, however many
        #[arg(long)]
        all: bool,
        /// How it is printed
        #[arg(short = 'o', long, value_enum)]
        output: Option<Document>,
    },
}

/// Prints why a pod waits, or why it is where it is.
///
/// # Errors
/// Where the cluster cannot be read, or has no such pod.
pub fn run(
    args: &ExplainArgs,
    from: &SourceArgs,
    keys: &Keys,
    json: bool,
    out: &mut String,
) -> anyhow::Result<ExitCode> {
    let What::Pod { name, policy, all, output } = &args.what;
    let source = Source::open(from)?;
    let cluster = source.cluster(keys)?;
    let of_context = source.namespace(from);
    let (namespace, pod) = name.split_once('/').unwrap_or((of_context.as_deref().unwrap_or("default"), name));
    let known = cluster.pod(namespace, pod).with_context(|| {
        format!(
            "no pod {pod:?} in namespace {namespace} asks for {}: see kerf get pods --all-namespaces",
            asks_for(keys)
        )
    })?;
    let explained = Explanation::of(&cluster, known, *policy, &source.usage(&cluster));
    match output.or(json.then_some(Document::Json)) {
        Some(form) => out.push_str(&document(&serde_json::to_value(&explained)?, form)?),
        None => text(&explained, *all, out),
    }
    Ok(ExitCode::SUCCESS)
}

fn text(explained: &Explanation, all: bool, out: &mut String) {
    let Explanation { pod, summary, help, nodes, notes } = explained;
    paragraph("", &format!("{}/{}: {summary}", pod.namespace, pod.name), out);
    for (number, help) in help.iter().enumerate() {
        paragraph("  ", &format!("{}{help}", if number == 0 { "what helps: " } else { "or: " }), out);
    }
    let unfit = nodes.iter().filter(|node| node.score.is_none()).count();
    let most = if all { usize::MAX } else { TOLD };
    for node in nodes.iter().filter(|node| node.score.is_some()).take(most) {
        of_node(node, out);
    }
    for node in nodes.iter().filter(|node| node.score.is_none()).take(most) {
        of_node(node, out);
    }
    if !all && unfit > TOLD {
        say(out, &format!("{} more nodes do not take it: --all", unfit - TOLD));
    }
    for note in notes {
        paragraph("", &format!("! {note}"), out);
    }
}

fn of_node(node: &OfNode, out: &mut String) {
    let own = if node.its_own { " (where it is)" } else { "" };
    let verdict = match (node.score, &node.why) {
        (Some(score), _) => format!("fits, score {score}"),
        (None, why) => why.clone().unwrap_or_default(),
    };
    paragraph("", &format!("{}{own}: {verdict}", node.node), out);
    for gpu in &node.gpus {
        paragraph("  ", &format!("GPU {} {}", gpu.index, gpu.text), out);
    }
}
