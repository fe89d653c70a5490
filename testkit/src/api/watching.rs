//! The body of a watch: one JSON event per line, until something ends it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::failure::Failure;
use super::lag::Sight;
use super::object::{self, Object};
use super::resource::Resource;
use super::selector::Selector;
use super::shared::Inner;
use super::store::Change;

/// The most changes in one chunk, so that a late watcher does not lock the store for long.
const BATCH: usize = 1_000;

/// What a client asked to watch.
#[derive(Debug)]
pub(crate) struct Watching {
    pub(crate) resource: Resource,
    pub(crate) selector: Selector,
    pub(crate) agent: String,
    /// `None`: begin with the current objects, as an unset or zero resourceVersion asks.
    pub(crate) from: Option<u64>,
    /// End the initial events with an annotated bookmark (`sendInitialEvents`).
    pub(crate) mark_initial: bool,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
}

struct Watch {
    inner: Arc<Inner>,
    ask: Watching,
    /// Everything up to this version has been sent or does not concern the client.
    position: u64,
    pending: Vec<u8>,
    changes: watch::Receiver<u64>,
    lag: watch::Receiver<u64>,
    breaks: watch::Receiver<u64>,
    deadline: Instant,
    next_bookmark: Instant,
    done: bool,
}

/// The result of a look at the history.
enum Look {
    Told,
    Nothing { until: Option<Instant> },
    TooOld,
}

pub(crate) fn body(inner: Arc<Inner>, ask: Watching) -> Body {
    let now = Instant::now();
    let mut changes = inner.changes(ask.resource);
    let mut lag = inner.lag.subscribe();
    let mut breaks = inner.breaks.subscribe();
    changes.mark_unchanged();
    lag.mark_unchanged();
    breaks.mark_unchanged();
    let mut watch = Watch {
        position: ask.from.unwrap_or(0),
        pending: Vec::new(),
        changes,
        lag,
        breaks,
        deadline: now + ask.timeout,
        next_bookmark: now + inner.config.bookmark_every,
        done: false,
        inner,
        ask,
    };
    if watch.ask.from.is_none() {
        watch.tell_initial();
    }
    Body::from_stream(stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok::<_, Infallible>(chunk), watch))
    }))
}

impl Watch {
    async fn next(&mut self) -> Option<Bytes> {
        let mut silent = self.inner.silent.subscribe();
        loop {
            if *silent.borrow_and_update() && !self.done {
                let closing = self.inner.closing.clone();
                tokio::select! {
                    _ = silent.changed() => continue,
                    _ = self.breaks.changed() => self.done = true,
                    () = closing.cancelled() => self.done = true,
                }
            }
            if !self.pending.is_empty() {
                return Some(std::mem::take(&mut self.pending).into());
            }
            if self.done {
                return None;
            }
            // Mark as seen before looking: a change between look and wait must wake us.
            self.changes.borrow_and_update();
            self.lag.borrow_and_update();
            let until = match self.look() {
                Look::Told => continue,
                Look::Nothing { until } => until,
                Look::TooOld => {
                    self.done = true;
                    continue;
                }
            };
            let bookmark = self.next_bookmark;
            let wake = until.map_or(bookmark, |until| until.min(bookmark));
            let closing = self.inner.closing.clone();
            tokio::select! {
                changed = self.changes.changed() => self.done = changed.is_err(),
                _ = self.lag.changed() => {}
                _ = silent.changed() => {}
                _ = self.breaks.changed() => self.done = true,
                () = closing.cancelled() => self.done = true,
                () = tokio::time::sleep_until(self.deadline) => {
                    self.tell_bookmark(false);
                    self.done = true;
                }
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= bookmark {
                        self.tell_bookmark(false);
                        self.next_bookmark = Instant::now() + self.inner.config.bookmark_every;
                    }
                }
            }
        }
    }

    fn look(&mut self) -> Look {
        let inner = self.inner.clone();
        let mut found: Vec<Change> = Vec::new();
        let mut blocked = None;
        let newest;
        let oldest;
        {
            let mut store = inner.store();
            newest = store.rv();
            let shelf = store.shelf(self.ask.resource);
            oldest = shelf.oldest();
            let Some(changes) = shelf.since(self.position) else {
                drop(store);
                let failure = Failure::expired(self.position, oldest);
                self.tell("ERROR", failure.status().to_string().as_bytes());
                return Look::TooOld;
            };
            for change in changes.take(BATCH) {
                match inner.lag.sight(self.ask.resource, &self.ask.agent, change) {
                    Sight::Now => found.push(change.clone()),
                    sight => {
                        blocked = Some(sight);
                        break;
                    }
                }
            }
        }
        if found.is_empty() {
            return match blocked {
                None => {
                    self.position = self.position.max(newest);
                    Look::Nothing { until: None }
                }
                Some(Sight::At(until)) => Look::Nothing { until: Some(until) },
                Some(Sight::Held | Sight::Now) => Look::Nothing { until: None },
            };
        }
        for change in found {
            self.position = change.object.rv;
            self.tell_change(&change);
        }
        Look::Told
    }

    fn tell_change(&mut self, change: &Change) {
        let matches = |object: &Object| self.ask.selector.matches(&object.value);
        let before = change.before.as_ref().filter(|before| matches(before));
        let after = !change.deleted && matches(&change.object);
        match (before, after) {
            (None, true) => self.tell("ADDED", &change.object.text()),
            (Some(_), true) => self.tell("MODIFIED", &change.object.text()),
            (Some(_), false) if change.deleted => self.tell("DELETED", &change.object.text()),
            // It left the selection: the client gets the last state that matched.
            (Some(before), false) => {
                let last = Object::new(self.ask.resource, (*before.value).clone(), change.object.rv);
                self.tell("DELETED", &last.text());
            }
            (None, false) => {}
        }
    }

    fn tell_initial(&mut self) {
        let inner = self.inner.clone();
        let (rv, objects) = {
            let mut store = inner.store();
            let rv = store.rv();
            let objects: Vec<Object> = store
                .shelf(self.ask.resource)
                .objects
                .values()
                .filter(|object| self.ask.selector.matches(&object.value))
                .cloned()
                .collect();
            (rv, objects)
        };
        self.position = rv;
        for object in objects {
            self.tell("ADDED", &object.text());
        }
        if self.ask.mark_initial {
            self.tell_bookmark(true);
        }
    }

    fn tell_bookmark(&mut self, initial: bool) {
        if !self.ask.bookmarks {
            return;
        }
        let mut bookmark = json!({
            "kind": self.ask.resource.kind(),
            "apiVersion": self.ask.resource.api_version(),
            "metadata": { "resourceVersion": self.position.to_string(), "creationTimestamp": null },
        });
        if initial {
            object::set(
                &mut bookmark,
                &["metadata", "annotations", "k8s.io/initial-events-end"],
                Value::from("true"),
            );
        }
        self.tell("BOOKMARK", bookmark.to_string().as_bytes());
    }

    fn tell(&mut self, kind: &str, object: &[u8]) {
        self.pending.extend_from_slice(b"{\"type\":\"");
        self.pending.extend_from_slice(kind.as_bytes());
        self.pending.extend_from_slice(b"\",\"object\":");
        self.pending.extend_from_slice(object);
        self.pending.extend_from_slice(b"}\n");
    }
}
