//! Scenario files: a cluster, a pod, and where the pod must go. They are read here, and their objects made into
//! Kubernetes JSON, for every runner: the domain's (`tests/scenarios.rs`) and the extender's. Nothing of kerf is needed,
//! so that a mistake in kerf cannot hide itself here.
//!
//! ```text
//! # a comment
//! scenario V20 Nodes without cards are named as such.       id, then one line of prose: why
//! upstream n0 0; others "already matched"                   what gpu-admission did, where it differs
//! after V19                                                 starts from V19's cluster, its pod placed and running
//! node n0 200/120                                           capacity core/memory; `node cpu` has no cards
//! node n0 200/120 shares 4                                  ... each card offered as so many shares by count
//! pod e1 on n0 50/10, 200/0 @ 0 | 1,2 running               bound; after @ the compatibility record by container
//! pod r1 for n0 80/10 @ 0 pending                           not bound, but promised to n0 (`predicate-node`)
//! pod e2 on n0 2x @ 0 running                               with the record of its shares by count, all on card 0
//! request init 10/1, none, 50/10                            containers: init, sidecar or app; `-` is absent
//! request 2x                                                two shares by count
//! annotation predicate-node n0                              on the requesting pod, in the domain
//! missing pod                                               the API server does not know the requesting pod
//! payload names                                             the scheduler sends NodeNames instead of Nodes
//! => n0 i0:0 c1:0                                           the node and each container's cards
//! => no node | => every node | => refused <text>            ... or none fits | no GPU pod | a broken rule
//! !! cpu no GPU device                                      why this node does not fit; all others must fit
//! ```
//!
//! Containers are named by list and position: `c1` is the second of `spec.containers`, `i0` the first of
//! `spec.initContainers`. A line that is none of these is an error with its number.

#![allow(missing_docs, reason = "for tests alone; the format is above")]

mod render;
pub mod requests;

use std::collections::BTreeMap;

/// Every scenario file, by name.
pub const FILES: [(&str, &str); 2] =
    [("gpu-admission.txt", include_str!("../gpu-admission.txt")), ("kerf.txt", include_str!("../kerf.txt"))];

/// The resource of shares by count.
pub const SHARES: &str = "deepomatic.com/shared-gpu";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub id: String,
    pub line: usize,
    pub why: String,
    /// What gpu-admission did, where kerf decides otherwise; for people.
    pub upstream: Option<String>,
    /// In the order of the request.
    pub nodes: Vec<Node>,
    pub pods: Vec<Pod>,
    pub request: Request,
    pub outcome: Outcome,
    /// Why a node does not fit. Nodes that are neither here nor the outcome fit, but less well.
    pub unfit: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    /// Core and memory; absent on a node without cards.
    pub capacity: Option<(u64, u64)>,
    /// How many shares by count each card is offered as.
    pub shares: Option<u32>,
}

/// A pod that is there before the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub node: String,
    /// Bound to `node`, or only promised to it.
    pub bound: bool,
    /// `Running`, `Pending`, `Failed` or `Succeeded`.
    pub phase: &'static str,
    pub containers: Vec<Container>,
    /// The value of `predicate-gpu-idx-<i>`, for each container in order.
    pub record: Vec<Option<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Init,
    Sidecar,
    App,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub kind: Kind,
    pub core: Option<String>,
    pub memory: Option<String>,
    /// Of [`SHARES`].
    pub shares: Option<String>,
}

/// The pod that is to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Init containers and sidecars first, as kubelet starts them.
    pub containers: Vec<Container>,
    /// By key without the domain.
    pub annotations: Vec<(String, String)>,
    /// Whether the API server knows the pod.
    pub stored: bool,
    /// Whether the scheduler sends names only (`nodeCacheCapable`).
    pub names_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The best node, and the cards' indices by name of container.
    Placed { node: String, cards: BTreeMap<String, Vec<u32>> },
    /// No node fits.
    NoNode,
    /// The pod asks for no card; all nodes pass.
    EveryNode,
    /// The request breaks a rule, with this text.
    Refused(String),
}

/// Every scenario of every file.
pub fn all() -> Result<Vec<Scenario>, String> {
    let mut all = Vec::new();
    for (name, text) in FILES {
        all.extend(parse(text).map_err(|error| format!("{name}: {error}"))?);
    }
    Ok(all)
}

/// Reads one file. The error begins with the number of the line.
pub fn parse(text: &str) -> Result<Vec<Scenario>, String> {
    let mut done: Vec<Scenario> = Vec::new();
    let mut open: Option<Draft> = None;
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_end())) {
        let at = |error: String| format!("line {number}: {error}");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "scenario" {
            done.extend(open.take().map(Draft::finish).transpose()?);
            open = Some(Draft::new(number, rest, &done).map_err(at)?);
        } else {
            let draft = open.as_mut().ok_or_else(|| at("expected `scenario`".into()))?;
            draft.line(word, rest, &done).map_err(at)?;
        }
    }
    done.extend(open.map(Draft::finish).transpose()?);
    Ok(done)
}

struct Draft {
    scenario: Scenario,
    request: bool,
    outcome: bool,
}

impl Draft {
    fn new(line: usize, rest: &str, done: &[Scenario]) -> Result<Self, String> {
        let (id, why) = rest.split_once(' ').ok_or("expected `scenario ID why`")?;
        if done.iter().any(|other| other.id == id) {
            return Err(format!("scenario {id} is there twice"));
        }
        let request = Request { containers: vec![], annotations: vec![], stored: true, names_only: false };
        let scenario = Scenario {
            id: id.into(),
            line,
            why: why.into(),
            upstream: None,
            nodes: vec![],
            pods: vec![],
            request,
            outcome: Outcome::NoNode,
            unfit: BTreeMap::new(),
        };
        Ok(Self { scenario, request: false, outcome: false })
    }

    fn line(&mut self, word: &str, rest: &str, done: &[Scenario]) -> Result<(), String> {
        let scenario = &mut self.scenario;
        match (word, rest) {
            ("upstream", _) if scenario.upstream.is_none() => scenario.upstream = Some(rest.into()),
            ("after", _) if scenario.nodes.is_empty() && scenario.pods.is_empty() => {
                let before = done.iter().find(|other| other.id == rest);
                let before = before.ok_or_else(|| format!("no scenario {rest} before"))?;
                scenario.nodes = before.nodes.clone();
                scenario.pods = before.pods.clone();
                scenario.pods.extend(before.placed()?);
            }
            ("node", _) => {
                let (rest, shares) = match rest.split_once(" shares ") {
                    Some((rest, shares)) => (rest, Some(shares.parse().map_err(|_| "no number of shares")?)),
                    None => (rest, None),
                };
                let (name, capacity) = match rest.split_once(' ') {
                    Some((name, capacity)) => (name, Some(amounts(capacity)?)),
                    None => (rest, None),
                };
                if name.is_empty() || scenario.nodes.iter().any(|node| node.name == name) {
                    return Err(format!("no name for a node, or there twice: {name:?}"));
                }
                scenario.nodes.push(Node { name: name.into(), capacity, shares });
            }
            ("pod", _) => {
                let pod = pod(rest)?;
                scenario.known(&pod.node)?;
                if scenario.pods.iter().any(|other| other.name == pod.name) {
                    return Err(format!("pod {} is there twice", pod.name));
                }
                scenario.pods.push(pod);
            }
            ("request", _) if !self.request => {
                scenario.request.containers = containers(rest)?;
                self.request = true;
            }
            ("annotation", _) => {
                let (key, value) = rest.split_once(' ').ok_or("expected `annotation KEY VALUE`")?;
                scenario.request.annotations.push((key.into(), value.into()));
            }
            ("missing", "pod") => scenario.request.stored = false,
            ("payload", "names") => scenario.request.names_only = true,
            ("=>", _) if self.request && !self.outcome => {
                scenario.outcome = outcome(rest, scenario)?;
                self.outcome = true;
            }
            ("!!", _) if self.outcome => {
                let (node, reason) = rest.split_once(' ').ok_or("expected `!! NODE reason`")?;
                scenario.known(node)?;
                let chosen = matches!(&scenario.outcome, Outcome::Placed { node: best, .. } if best == node);
                if chosen || scenario.unfit.insert(node.into(), reason.into()).is_some() {
                    return Err(format!("node {node} has an outcome already"));
                }
            }
            _ => return Err(format!("unknown, repeated or out of place: {word:?}")),
        }
        Ok(())
    }

    fn finish(self) -> Result<Scenario, String> {
        if self.request && self.outcome {
            Ok(self.scenario)
        } else {
            Err(format!("line {}: scenario {} lacks `request` or `=>`", self.scenario.line, self.scenario.id))
        }
    }
}

impl Scenario {
    fn known(&self, node: &str) -> Result<(), String> {
        let known = self.nodes.iter().any(|known| known.name == node);
        if known { Ok(()) } else { Err(format!("unknown node {node:?}")) }
    }

    /// The pod as it is once it runs where the outcome says.
    fn placed(&self) -> Result<Option<Pod>, String> {
        let Outcome::Placed { node, cards } = &self.outcome else { return Ok(None) };
        let containers = self.request.containers.clone();
        if containers.iter().any(|container| container.kind != Kind::App) {
            return Err(format!("scenario {} has init containers, which the record leaves out", self.id));
        }
        if containers.iter().any(|container| container.shares.is_some()) {
            return Err(format!(
                "scenario {} has shares by count, of which it does not say how many are where",
                self.id
            ));
        }
        let text = |cards: &Vec<u32>| cards.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let record = containers.iter().map(|container| cards.get(&container.name).map(text)).collect();
        let (name, node) = (self.pod_name(), node.clone());
        Ok(Some(Pod { name, node, bound: true, phase: "Running", containers, record }))
    }
}

fn amounts(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let (core, memory) = text.split_once('/').ok_or("expected CORE/MEMORY")?;
    Some((number(core), number(memory)))
        .and_then(|(core, memory)| Some((core?, memory?)))
        .ok_or_else(|| format!("no amounts: {text:?}"))
}

fn containers(text: &str) -> Result<Vec<Container>, String> {
    let (mut inits, mut apps) = (0, 0);
    text.split(", ")
        .map(|text| {
            let (kind, text) = match text.split_once(' ') {
                Some(("init", text)) => (Kind::Init, text),
                Some(("sidecar", text)) => (Kind::Sidecar, text),
                Some(_) => return Err(format!("no container: {text:?}")),
                None => (Kind::App, text),
            };
            if kind != Kind::App && apps > 0 {
                return Err("init containers come first".into());
            }
            let (letter, position) = if kind == Kind::App { ('c', &mut apps) } else { ('i', &mut inits) };
            let name = format!("{letter}{position}");
            *position += 1;
            let amount = |text: &str| (text != "-").then(|| text.to_owned());
            let shares = text.strip_suffix('x').filter(|count| count.parse::<u64>().is_ok()).map(str::to_owned);
            let (core, memory) = match text.split_once('/') {
                _ if shares.is_some() => (None, None),
                _ if text == "none" => (None, None),
                Some((core, memory)) if !core.is_empty() && !memory.is_empty() => (amount(core), amount(memory)),
                _ => return Err(format!("no container: {text:?}")),
            };
            Ok(Container { name, kind, core, memory, shares })
        })
        .collect()
}

fn pod(text: &str) -> Result<Pod, String> {
    let expected = || format!("expected `NAME on|for NODE CONTAINERS [@ RECORD] STATE`, not {text:?}");
    let (name, rest) = text.split_once(' ').ok_or_else(expected)?;
    let (how, rest) = rest.split_once(' ').ok_or_else(expected)?;
    let (node, rest) = rest.split_once(' ').ok_or_else(expected)?;
    let (rest, state) = rest.rsplit_once(' ').ok_or_else(expected)?;
    let (amounts, record) = rest.split_once(" @ ").map_or((rest, None), |(a, record)| (a, Some(record)));
    let containers = containers(amounts)?;
    let record: Vec<Option<String>> = match record {
        Some(record) => record.split(" | ").map(|text| (text != "none").then(|| text.into())).collect(),
        None => vec![None; containers.len()],
    };
    let (bound, phase) = match (how, state) {
        ("on", "running") => (true, "Running"),
        ("on", "failed") => (true, "Failed"),
        ("on", "succeeded") => (true, "Succeeded"),
        ("on", "pending") => (true, "Pending"),
        ("for", "pending") => (false, "Pending"),
        _ => return Err(expected()),
    };
    if record.len() != containers.len() || containers.iter().any(|container| container.kind != Kind::App) {
        return Err("the record has one part for each container, and knows no init containers".into());
    }
    Ok(Pod { name: name.into(), node: node.into(), bound, phase, containers, record })
}

fn outcome(text: &str, scenario: &Scenario) -> Result<Outcome, String> {
    match text {
        "no node" => return Ok(Outcome::NoNode),
        "every node" => return Ok(Outcome::EveryNode),
        _ => {}
    }
    if let Some(error) = text.strip_prefix("refused ") {
        return Ok(Outcome::Refused(error.into()));
    }
    let mut words = text.split(' ');
    let node = words.next().unwrap_or_default();
    scenario.known(node)?;
    let mut cards = BTreeMap::new();
    for word in words {
        let (name, indices) =
            word.split_once(':').ok_or_else(|| format!("expected CONTAINER:CARDS, not {word:?}"))?;
        if !scenario.request.containers.iter().any(|container| container.name == name) {
            return Err(format!("unknown container {name:?}"));
        }
        let indices: Result<Vec<u32>, _> = indices.split(',').map(str::parse).collect();
        if cards.insert(name.to_owned(), indices.map_err(|_| format!("no cards: {word:?}"))?).is_some() {
            return Err(format!("container {name} is there twice"));
        }
    }
    Ok(Outcome::Placed { node: node.into(), cards })
}
