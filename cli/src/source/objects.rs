//! Objects in the text of a list, with the position of errors in it.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

pub enum Item {
    Node(Box<Node>),
    Pod(Box<Pod>),
    Lease(Box<Lease>),
}

/// A parser's message without the position, which is printed before it, and without advice for programmers.
pub fn plain(words: &str) -> &str {
    let tails = [" at line ", "; use ", ", set ", ". If you "];
    let end = tails.iter().filter_map(|tail| words.find(tail)).min().unwrap_or(words.len());
    let words = words.get(..end).unwrap_or(words);
    match words.strip_prefix("error: ").unwrap_or(words) {
        bound if bound.starts_with("budget breached: ") => {
            "larger or more deeply nested than such an object may be"
        }
        placed if placed.starts_with("line ") => placed.split_once(": ").map_or(placed, |(_, words)| words),
        words => words,
    }
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// The objects of a list, or a Node by itself (`kubectl get node <name> --output json`); and the kind of those that do not
/// say theirs, as in the API server's own lists.
fn items(text: &str) -> serde_json::Result<(String, Vec<&RawValue>)> {
    match serde_json::from_str::<Head>(text) {
        Ok(head) if head.kind == "Node" => Ok((head.kind, vec![serde_json::from_str(text)?])),
        head => {
            let kind = head.ok().and_then(|head| head.kind.strip_suffix("List").map(str::to_owned));
            let kind = kind.unwrap_or_default();
            Ok((kind, serde_json::from_str::<List<'_>>(text)?.items))
        }
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
///
/// # Errors
/// Where the text is no list of objects, and those of `visit`; with the place after `name`.
pub fn each(text: &str, name: &str, visit: &mut dyn FnMut(Item, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    const EXPECTED: &str = "expected what `kubectl get nodes,pods --all-namespaces --output json` prints";
    let (kind, items) = items(text).map_err(|error| {
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
        let mut head: Head = serde_json::from_str(raw.get()).unwrap_or_default();
        if head.kind.is_empty() {
            head.kind.clone_from(&kind);
        }
        let what = format!("{} {}/{}", head.kind, head.metadata.namespace, head.metadata.name);
        let at = format!("{name}: line {line}: {what}");
        let place = Place { file: name, what: &what, line, before: text.get(..start).unwrap_or_default() };
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
    file: &'a str,
    what: &'a str,
    line: usize,
    /// The text before the item. Its last line is only looked for where an error is told: there may be one for all items.
    before: &'a str,
}

impl Place<'_> {
    fn parse<T: DeserializeOwned>(&self, raw: &RawValue) -> anyhow::Result<Box<T>> {
        let read = serde_json::from_str(raw.get()).or_else(|error| unmanaged(raw.get()).ok_or(error));
        read.map(Box::new).map_err(|error| {
            let before = self.before.len() - self.before.rfind('\n').map_or(0, |at| at + 1);
            let column = error.column() + if error.line() == 1 { before } else { 0 };
            let line = self.line + error.line().saturating_sub(1);
            let (file, words) = (self.file, error.to_string());
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
            "larger or more deeply nested than such an object may be"
        );
        assert_eq!(plain("multiple documents; use from_str_multiple at line 6, column 1"), "multiple documents");
    }
}
