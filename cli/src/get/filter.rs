//! Which nodes and GPUs are shown.

use anyhow::{bail, ensure};

use crate::view::{Gpu, View};

/// At most so many names are listed in an error.
const NAMED: usize = 8;

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Gpus {
    /// Only on this node
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Only on this GPU, by its index on its node or its UUID
    #[arg(long, value_name = "INDEX|UUID")]
    pub gpu: Option<String>,
}

/// Keeps one node, or all.
pub fn node(view: &mut View, name: Option<&str>) -> anyhow::Result<()> {
    let only = Gpus { node: name.map(str::to_owned), gpu: None };
    only.keep(view)
}

/// What the name of a GPU says: a UUID, `node/index`, or a node.
pub fn named(name: Option<&str>, only: &Gpus) -> anyhow::Result<Gpus> {
    let Some(name) = name else { return Ok(only.clone()) };
    Ok(match name.split_once('/') {
        Some((node, index)) => {
            ensure!(
                !node.is_empty() && !index.is_empty(),
                "{name:?}: expected NODE/INDEX, a UUID or a node's name"
            );
            Gpus { node: Some(node.to_owned()), gpu: Some(index.to_owned()) }
        }
        // a node's name is in lower case, and no vendor's UUID is
        None if name.chars().any(|c| c.is_ascii_uppercase()) => Gpus { node: None, gpu: Some(name.to_owned()) },
        None => Gpus { node: Some(name.to_owned()), gpu: None },
    })
}

impl Gpus {
    pub fn is_all(&self) -> bool {
        self.node.is_none() && self.gpu.is_none()
    }

    /// Whether the GPU is meant.
    pub fn means(&self, gpu: &Gpu) -> bool {
        self.gpu.as_deref().is_none_or(|name| gpu.uuid == name || name.parse() == Ok(gpu.index))
    }

    /// Removes all other nodes and GPUs, and counts again.
    ///
    /// # Errors
    /// Where there is no such node or GPU.
    pub fn keep(&self, view: &mut View) -> anyhow::Result<()> {
        if self.is_all() {
            return Ok(());
        }
        if let Some(name) = &self.node {
            let known: Vec<&str> = view.nodes.iter().map(|node| &*node.name).collect();
            if !known.contains(&name.as_str()) {
                bail!("no node with GPUs is called {name:?}: {}", listed("there is", known.into_iter()));
            }
            view.nodes.retain(|node| node.name == *name);
        }
        if let Some(name) = &self.gpu {
            let all = view.nodes.iter().flat_map(|node| &node.gpus).map(|gpu| gpu.index.to_string());
            let all: Vec<String> = all.collect();
            view.nodes.iter_mut().for_each(|node| node.gpus.retain(|gpu| self.means(gpu)));
            view.nodes.retain(|node| !node.gpus.is_empty());
            if view.nodes.is_empty() {
                let has = listed("it has", all.iter().map(String::as_str));
                match &self.node {
                    Some(node) => bail!("node {node} has no GPU {name:?}: {has}"),
                    None => bail!("no node has a GPU {name:?}: give its UUID, or its index and --node"),
                }
            }
        }
        let kept = |node: &str| view.nodes.iter().any(|own| own.name == node);
        view.unmeasured.retain(|unmeasured| kept(&unmeasured.node));
        view.count_again();
        Ok(())
    }
}

fn listed<'a>(first: &str, names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let number = names.len();
    let named: Vec<&str> = names.take(NAMED).collect();
    match number {
        0 => "there is none".to_owned(),
        number if number > NAMED => format!("{first} {} and {} more", named.join(", "), number - NAMED),
        _ => format!("{first} {}", named.join(", ")),
    }
}
