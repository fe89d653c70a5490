//! `kerf node-template`: what an autoscaler needs to know of a node group that has no node, from a node like those that the
//! group gets.

mod formats;
mod group;
mod names;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use kerf::annotation::Keys;
use kerf::k8s;
use serde_json::Value;

use super::source::{Item, Source, SourceArgs};
use group::Group;

/// At most so many names are listed in an error.
const NAMED: usize = 8;

/// Which node, and for which autoscaler.
#[derive(Debug, clap::Args)]
pub struct NodeTemplateArgs {
    /// Which node, where the cluster has several with GPUs
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// For which autoscaler
    #[arg(long, value_enum)]
    format: Format,
    /// The name of the Auto Scaling group (asg), or of the NodeOverlay (karpenter; otherwise kerf- and the instance type in
    /// lower case)
    #[arg(long, value_name = "NAME", required_if_eq("format", "asg"), value_parser = names::group)]
    group: Option<String>,
    /// Instance types that the NodeOverlay is for (karpenter), joined by commas; otherwise the node's
    #[arg(long, value_name = "TYPE,...", value_delimiter = ',', value_parser = names::label)]
    instance_type: Vec<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// Karpenter: a NodeOverlay, for kubectl apply
    Karpenter,
    /// Cluster Autoscaler on AWS: tags, for aws autoscaling create-or-update-tags --cli-input-json
    Asg,
    /// Cluster Autoscaler on Cluster API: annotations, for kubectl patch machinedeployment --type merge
    ClusterApi,
    /// The same: status.capacity, for kubectl patch <machine template> --subresource status --type merge
    ClusterApiTemplate,
}

/// Prints the template of one node.
///
/// # Errors
/// Where there is no such node, it has no GPUs, or what it has cannot be said in the format.
pub fn run(
    args: &NodeTemplateArgs,
    from: &SourceArgs,
    keys: &Keys,
    as_json: bool,
    out: &mut String,
) -> anyhow::Result<ExitCode> {
    let node = choose(args, &Source::open(from)?, keys)?;
    let group = Group::of(&node, keys)?;
    let template = match args.format {
        Format::Karpenter => formats::karpenter(&group, args.group.as_deref(), &args.instance_type)?,
        Format::Asg => formats::asg(&group, args.group.as_deref().unwrap_or_default())?,
        Format::ClusterApi => formats::cluster_api(&group),
        Format::ClusterApiTemplate => formats::cluster_api_template(&group),
    };
    for note in &template.notes {
        kerf::terminal::tell(&format!("note: {note}"));
    }
    // the command of AWS reads JSON alone
    write!(out, "{}", text(&template.object, as_json || matches!(args.format, Format::Asg))?)?;
    Ok(ExitCode::SUCCESS)
}

fn text(object: &Value, as_json: bool) -> anyhow::Result<String> {
    if as_json {
        return Ok(serde_json::to_string_pretty(object)? + "\n");
    }
    serde_saphyr::to_string(object).context("YAML")
}

/// The node of this name, or the only one with GPUs.
fn choose(args: &NodeTemplateArgs, source: &Source, keys: &Keys) -> anyhow::Result<Node> {
    let path = source.name();
    let (mut nodes, mut with_gpus) = (BTreeMap::new(), Vec::new());
    source.each(&mut |item, _| {
        if let Item::Node(node) = item {
            let name = node.metadata.name.clone().unwrap_or_default();
            if k8s::node(&node, keys)
                .is_some_and(|view| view.inventory.map_or(true, |own| !own.devices().is_empty()))
            {
                with_gpus.push(name.clone());
            }
            nodes.insert(name, *node);
        }
        Ok(())
    })?;
    let name = match (&args.node, &with_gpus[..]) {
        (Some(name), _) => name.clone(),
        (None, [only]) => only.clone(),
        (None, []) => {
            let mut others: Vec<&str> =
                nodes.values().filter_map(|node| k8s::offered_elsewhere(node, keys)).collect();
            others.sort_unstable();
            others.dedup();
            ensure!(
                others.is_empty(),
                "{path}: no GPUs under {}; the nodes have {}: see --domain",
                keys.domain,
                others.join(" and ")
            );
            bail!("{path}: no node has GPUs: the plugin writes {} on those that it serves", keys.inventory)
        }
        (None, several) => {
            let named: Vec<&str> = several.iter().take(NAMED).map(String::as_str).collect();
            let more = if several.len() > NAMED { ", ..." } else { "" };
            bail!("{path}: {} nodes have GPUs: choose one with --node ({}{more})", several.len(), named.join(", "))
        }
    };
    nodes.remove(&name).with_context(|| format!("{path}: no node is called {name:?}: see --node"))
}
