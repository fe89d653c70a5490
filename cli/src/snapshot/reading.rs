//! Reading of input files, with the position of errors in them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// In bytes, more than any cluster's snapshot: a bound on what is read into memory.
const MAX_BYTES: u64 = 2 << 30;

pub enum Item {
    Node(Box<Node>),
    Pod(Box<Pod>),
    Lease(Box<Lease>),
}

/// The text of a file, or of standard input for `-`.
pub fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let name = path.display();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text).context("standard input")
    } else {
        let file = std::fs::File::open(path).with_context(|| name.to_string())?;
        file.take(MAX_BYTES).read_to_string(&mut text).with_context(|| name.to_string())
    };
    ensure!((read? as u64) < MAX_BYTES, "{name}: larger than {} GiB", MAX_BYTES >> 30);
    Ok(text)
}

/// The one Pod of a file in YAML or JSON.
pub fn pod(path: &Path) -> anyhow::Result<Pod> {
    let wrong = |error: serde_saphyr::Error| {
        let place = error.location().map(|at| format!(": line {}, column {}", at.line(), at.column()));
        let words = error.without_snippet().to_string();
        anyhow!("{}{}: not a Pod: {}", path.display(), place.unwrap_or_default(), plain(&words))
    };
    let pod: Pod = serde_saphyr::from_str(&read(path)?).map_err(wrong)?;
    // nothing at all reads as a Pod of which nothing is known
    let is_one = pod.spec.as_ref().is_some_and(|spec| !spec.containers.is_empty());
    ensure!(is_one, "{}: not a Pod: spec.containers is missing or empty", path.display());
    Ok(pod)
}

/// A parser's message without the position, which is printed before it, and without advice for programmers.
fn plain(words: &str) -> &str {
    let tails = [" at line ", "; use ", ", set ", ". If you "];
    let end = tails.iter().filter_map(|tail| words.find(tail)).min().unwrap_or(words.len());
    let words = words.get(..end).unwrap_or(words);
    match words.strip_prefix("error: ").unwrap_or(words) {
        bound if bound.starts_with("budget breached: ") => "larger or more deeply nested than a Pod may be",
        placed if placed.starts_with("line ") => placed.split_once(": ").map_or(placed, |(_, words)| words),
        words => words,
    }
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// The objects of a list, or a Node by itself (`kubectl get node <name> --output json`).
fn items(text: &str) -> serde_json::Result<Vec<&RawValue>> {
    match serde_json::from_str::<Head>(text) {
        Ok(head) if head.kind == "Node" => Ok(vec![serde_json::from_str(text)?]),
        _ => Ok(serde_json::from_str::<List<'_>>(text)?.items),
    }
}

#[derive(Default, Deserialize)]
struct Head {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Name,
}

#[derive(Default, Deserialize)]
struct Name {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

/// Calls `visit` with each node, pod and lease, and with a text for its position.
pub fn each(path: &Path, mut visit: impl FnMut(Item, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    const EXPECTED: &str = "expected what `kubectl get nodes,pods --all-namespaces --output json` prints";
    let name = path.display();
    let text = read(path)?;
    let items = items(&text).map_err(|error| {
        let (what, (line, column)) =
            (if error.is_data() { "not a list" } else { "not JSON" }, (error.line(), error.column()));
        anyhow!("{name}: line {line}, column {column}: {what}: {}; {EXPECTED}", plain(&error.to_string()))
    })?;
    // items come in the order of the text, so lines are counted once
    let (mut line, mut counted) = (1, 0);
    for raw in items {
        let start = (raw.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        line += text.get(counted..start).unwrap_or_default().matches('\n').count();
        counted = start;
        let head: Head = serde_json::from_str(raw.get()).unwrap_or_default();
        let what = format!("{} {}/{}", head.kind, head.metadata.namespace, head.metadata.name);
        let at = format!("{name}: line {line}: {what}");
        let before = text.get(..start).map_or(0, |before| before.len() - before.rfind('\n').map_or(0, |at| at + 1));
        let place = Place { file: path, what: &what, line, before };
        match &*head.kind {
            "Node" => visit(Item::Node(place.parse(raw)?), &at)?,
            "Pod" => visit(Item::Pod(place.parse(raw)?), &at)?,
            "Lease" => visit(Item::Lease(place.parse(raw)?), &at)?,
            "" => bail!("{name}: line {line}: an object without a kind; {EXPECTED}"),
            _ => {}
        }
    }
    Ok(())
}

struct Place<'a> {
    file: &'a Path,
    what: &'a str,
    line: usize,
    /// Bytes of the line before the item.
    before: usize,
}

impl Place<'_> {
    fn parse<T: DeserializeOwned>(&self, raw: &RawValue) -> anyhow::Result<Box<T>> {
        let read = serde_json::from_str(raw.get()).or_else(|error| unmanaged(raw.get()).ok_or(error));
        read.map(Box::new).map_err(|error| {
            let column = error.column() + if error.line() == 1 { self.before } else { 0 };
            let line = self.line + error.line().saturating_sub(1);
            let (file, words) = (self.file.display(), error.to_string());
            anyhow!("{file}: line {line}, column {column}: {}: {}", self.what, plain(&words))
        })
    }
}

/// Parses an object without `metadata.managedFields`: a client that may write the object may write times and depths
/// there that the API server accepts and that cannot be parsed here. Nothing here needs them.
fn unmanaged<T: DeserializeOwned>(text: &str) -> Option<T> {
    type Fields = BTreeMap<String, Box<RawValue>>;
    let mut object: Fields = serde_json::from_str(text).ok()?;
    let mut metadata: Fields = serde_json::from_str(object.get("metadata")?.get()).ok()?;
    metadata.remove("managedFields")?;
    object.insert("metadata".to_owned(), serde_json::value::to_raw_value(&metadata).ok()?);
    serde_json::from_str(&serde_json::to_string(&object).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_parsers_words_are_shown_without_place_and_advice() {
        assert_eq!(plain("expected value at line 1 column 1"), "expected value");
        assert_eq!(plain("error: line 2 column 1: invalid kind"), "invalid kind");
        let twice = "duplicate mapping key: kind, set DuplicateKeyPolicy in Options if acceptable";
        assert_eq!(plain(twice), "duplicate mapping key: kind");
        assert_eq!(
            plain("budget breached: Nodes { nodes: 250001 }"),
            "larger or more deeply nested than a Pod may be"
        );
        assert_eq!(plain("multiple documents; use from_str_multiple at line 6, column 1"), "multiple documents");
    }
}
