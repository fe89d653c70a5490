//! `kerf get`: nodes, GPUs and pods, as tables and documents.

mod filter;
mod gpus;
mod nodes;
mod pods;
mod shown;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use kerf::annotation::Keys;
use kerf::terminal;

use super::source::{Source, SourceArgs};
use crate::amounts::UNKNOWN;
use crate::output::{Document, document};
use crate::table::{paragraph, terminal_width};
use crate::view::View;
use filter::Gpus;
use shown::Shown;

#[derive(Debug, clap::Args)]
pub struct GetArgs {
    #[command(subcommand)]
    what: What,
    /// How it is printed
    #[arg(short = 'o', long, global = true, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Nodes with GPUs: what is granted, used and free of them
    #[command(visible_alias = "node", alias = "no")]
    Nodes {
        /// Only this node
        name: Option<String>,
    },
    /// GPUs: their state, what is granted and used of them, and who holds how much
    #[command(visible_alias = "gpu")]
    Gpus {
        /// Only this GPU (its UUID, or NODE/INDEX), or those of this node
        #[arg(value_name = "NAME", conflicts_with_all = ["node", "gpu"])]
        name: Option<String>,
        #[command(flatten)]
        only: Gpus,
    },
    /// Pods that ask for GPUs: which they have, what they use of them, and why they wait
    #[command(visible_alias = "pod", alias = "po")]
    Pods(pods::PodsArgs),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    #[default]
    Table,
    /// More columns
    Wide,
    Json,
    Yaml,
}

/// Prints what was asked for. Exit status 1 where there is none.
///
/// # Errors
/// Where the cluster cannot be read, or a filter names what it does not have.
pub fn run(
    args: &GetArgs,
    from: &SourceArgs,
    keys: &Keys,
    json: bool,
    out: &mut String,
) -> anyhow::Result<ExitCode> {
    let source = Source::open(from)?;
    let cluster = source.cluster(keys)?;
    let mut view = View::of(&cluster, &source.usage(&cluster));
    let output = if json { Output::Json } else { args.output };
    let wide = output == Output::Wide;
    let (shown, hidden) = match &args.what {
        What::Nodes { name } => {
            filter::node(&mut view, name.as_deref())?;
            (nodes::table(&view, wide), "pods")
        }
        What::Gpus { name, only } => {
            filter::named(name.as_deref(), only)?.keep(&mut view)?;
            (gpus::table(&view, wide), "pods")
        }
        What::Pods(args) => {
            let others = args.keep(&mut view, source.namespace(from).as_deref())?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (pods::table(&view, args, now, wide, others), "nodes")
        }
    };
    match output {
        Output::Table | Output::Wide => text(&view, &shown, out),
        Output::Json | Output::Yaml => {
            let mut shown = serde_json::to_value(&view)?;
            shown.as_object_mut().map(|shown| shown.remove(hidden));
            let form = if output == Output::Yaml { Document::Yaml } else { Document::Json };
            out.push_str(&document(&shown, form)?);
        }
    }
    if !shown.found {
        shown.below.iter().for_each(|line| terminal::tell(line));
    }
    Ok(if shown.found { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(view: &View, shown: &Shown, out: &mut String) {
    if shown.found {
        shown.table.render(terminal_width(), out);
        shown.below.iter().for_each(|line| paragraph("", line, out));
    }
    for note in notes(view) {
        paragraph("", &format!("! {note}"), out);
    }
}

/// What is wrong or not known, as sentences.
fn notes(view: &View) -> Vec<String> {
    let mut notes = view.notes.clone();
    let of_nodes =
        view.nodes.iter().flat_map(|node| node.notes.iter().map(move |note| format!("{}: {note}", node.name)));
    notes.extend(of_nodes);
    // one line for each reason
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for unmeasured in &view.unmeasured {
        match reasons.iter_mut().find(|(why, _)| *why == unmeasured.why) {
            Some((_, nodes)) => nodes.push(&unmeasured.node),
            None => reasons.push((&unmeasured.why, vec![&unmeasured.node])),
        }
    }
    for (why, nodes) in reasons {
        let named = nodes.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let more = nodes.len().saturating_sub(3);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        notes.push(format!("what is used is not known ({UNKNOWN}) of {named}{more}: {why}"));
    }
    notes
}
