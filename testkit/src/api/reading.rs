//! get, list and watch.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use serde_json::json;

use super::call::Ask;
use super::failure::Failure;
use super::object::{Key, Object};
use super::selector::Selector;
use super::shared::Inner;
use super::store::Store;
use super::watching::{self, Watching};

/// How long a watch lasts if its client sets no timeout.
const WATCH: Duration = Duration::from_secs(1_800);

pub(crate) fn key(ask: &Ask) -> Key {
    (ask.target.namespace.clone().unwrap_or_default(), ask.target.name.clone().unwrap_or_default())
}

fn selector(ask: &Ask) -> Result<Selector, Failure> {
    Selector::parse(
        ask.target.resource,
        ask.target.namespace.clone(),
        ask.text("fieldSelector"),
        ask.text("labelSelector"),
    )
}

pub(crate) fn get(inner: &Inner, ask: &Ask) -> Result<Body, Failure> {
    let object = inner.store().get(ask.target.resource, &key(ask))?;
    Ok(object.text().into())
}

fn version(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| Failure::bad_request(format!("invalid resource version: \"{text}\"")))
}

pub(crate) fn list(inner: &Inner, ask: &Ask) -> Result<Body, Failure> {
    let resource = ask.target.resource;
    let selector = selector(ask)?;
    let limit: usize = match ask.text("limit") {
        "" => 0,
        text => text.parse().map_err(|_| Failure::bad_request("invalid limit"))?,
    };
    let mut store = inner.store();
    let (rv, after) = start(&mut store, ask)?;
    let shelf = store.shelf(resource);
    let mut matching = shelf
        .objects
        .iter()
        .skip_while(|(key, _)| after.as_ref().is_some_and(|after| *key <= after))
        .filter(|(_, object)| selector.matches(&object.value));
    let mut page: Vec<Object> = Vec::new();
    let mut rest = 0;
    let mut last: Option<Key> = None;
    for (key, object) in matching.by_ref() {
        if limit > 0 && page.len() == limit {
            rest = 1 + matching.count();
            break;
        }
        page.push(object.clone());
        last = Some(key.clone());
    }
    drop(store);
    let mut metadata = json!({ "resourceVersion": rv.to_string() });
    if let (Some((namespace, name)), 1..) = (last, rest) {
        metadata["continue"] = format!("{rv}/{namespace}/{name}").into();
        metadata["remainingItemCount"] = rest.into();
    }
    let mut out = Vec::with_capacity(page.iter().map(|object| object.item().len() + 2).sum::<usize>() + 256);
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        resource.kind(),
        ask.target.api_version
    );
    out.extend_from_slice(head.as_bytes());
    for (index, object) in page.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        out.extend_from_slice(object.item());
    }
    out.extend_from_slice(b"]}");
    Ok(out.into())
}

/// The version of a list, and the key after which it continues.
///
/// A continued list reads the current objects but keeps the version of its first page: a watch
/// from there repeats the changes in between, so its client ends up with the current state all the same.
fn start(store: &mut Store, ask: &Ask) -> Result<(u64, Option<Key>), Failure> {
    let resource = ask.target.resource;
    let now = store.rv();
    if let Some(token) = ask.query.get("continue").filter(|token| !token.is_empty()) {
        let mut parts = token.splitn(3, '/');
        let rv = version(parts.next().unwrap_or_default())?;
        let (Some(namespace), Some(name)) = (parts.next(), parts.next()) else {
            return Err(Failure::bad_request("continue key is not valid"));
        };
        let oldest = store.oldest(resource);
        if rv < oldest {
            return Err(Failure::expired(rv, oldest));
        }
        return Ok((rv, Some((namespace.to_owned(), name.to_owned()))));
    }
    let asked = match ask.text("resourceVersion") {
        "" | "0" => return Ok((now, None)),
        text => version(text)?,
    };
    if asked > now {
        return Err(Failure::new(504, "Timeout", format!("Too large resource version: {asked}, current: {now}")));
    }
    if ask.text("resourceVersionMatch") == "Exact" && asked != now {
        // Only the current state is kept; etcd answers the same for a compacted version.
        return Err(Failure::expired(asked, now));
    }
    Ok((now, None))
}

pub(crate) fn watch(inner: &Arc<Inner>, ask: Ask) -> Result<Body, Failure> {
    let selector = selector(&ask)?;
    let initial = ask.flag("sendInitialEvents");
    let asked = match ask.text("resourceVersion") {
        "" | "0" => None,
        text => Some(version(text)?),
    };
    let from = asked.filter(|_| !initial);
    let timeout = match ask.text("timeoutSeconds") {
        "" => WATCH,
        text => Duration::from_secs(version(text)?),
    };
    if let Some(from) = from {
        let oldest = inner.store().oldest(ask.target.resource);
        if from < oldest {
            let event = json!({ "type": "ERROR", "object": Failure::expired(from, oldest).status() });
            return Ok(format!("{event}\n").into());
        }
    }
    Ok(watching::body(
        inner.clone(),
        Watching {
            resource: ask.target.resource,
            selector,
            bookmarks: ask.flag("allowWatchBookmarks"),
            agent: ask.agent,
            from,
            mark_initial: initial,
            timeout,
        },
    ))
}
