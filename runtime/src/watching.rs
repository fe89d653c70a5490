//! Follows the objects of one kind: lists them, watches from there, and lists again where the watch cannot continue.
//!
//! ```text
//!   list (each page has a deadline) --> watch (its answer has a deadline) --> event, bookmark, event, ...
//!     ^                                     |  ^                                  |
//!     |  version too old, silence           |  +---- ended, broken off -----------+
//!     +-------------------------------------+
//! ```
//!
//! A watch that is silent for longer than the time between bookmarks is abandoned, and everything is listed: what lost
//! the bookmarks may have lost events too. Failed attempts are repeated with growing pauses, which are reset when a
//! watch delivers something.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ListParams, WatchParams};
use kube::core::WatchEvent;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::feed::Feed;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// The API server ends a watch after this many seconds; it sends a bookmark first.
const LIFE: u32 = 290;

/// An event of the list or the watch.
#[derive(Clone, Debug)]
pub enum Event<K> {
    /// A complete list begins. If it fails, another begins.
    Init,
    /// An object of the list.
    InitApply(K),
    /// The list is complete: objects that are not in it do not exist.
    InitDone,
    /// An object was created or changed.
    Apply(K),
    /// An object was deleted, or no longer matches the selection.
    Delete(K),
}

/// Follows the objects of `api` that match `fields` until `token` is cancelled, and hands `apply` every event.
pub async fn follow<K>(
    api: Api<K>,
    fields: Option<&str>,
    feed: Feed,
    token: CancellationToken,
    apply: impl FnMut(Event<K>) + Send,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut watcher = Watcher { api, fields, feed: feed.clone(), pause: FIRST_PAUSE, apply };
    tokio::select! {
        () = token.cancelled() => {}
        () = watcher.run() => {}
        () = feed.tell() => {}
    }
}

async fn within<T>(most: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    timeout(most, call).await.map_err(|_| Failure::Silent(most))?.map_err(|error| Failure::from(&error))
}

struct Watcher<'a, K, F> {
    api: Api<K>,
    fields: Option<&'a str>,
    feed: Feed,
    pause: Duration,
    apply: F,
}

/// The resource version to watch from; `None`: list everything first.
type From = Option<String>;

impl<K, F> Watcher<'_, K, F>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    F: FnMut(Event<K>),
{
    async fn run(&mut self) {
        let mut from: From = None;
        loop {
            let (next, failure) = match from {
                None => match self.list().await {
                    Ok(version) => (Some(version), None),
                    Err(failure) => (None, Some(failure)),
                },
                Some(version) => self.watch(version).await,
            };
            from = next;
            if let Some(failure) = failure {
                self.feed.failed(failure);
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    async fn list(&mut self) -> Result<String, Failure> {
        (self.apply)(Event::Init);
        let params = ListParams { field_selector: self.fields.map(str::to_owned), ..ListParams::default() };
        let mut params = params.limit(PAGE);
        let most = self.feed.patience().list;
        loop {
            let page = within(most, self.api.list(&params)).await?;
            page.items.into_iter().for_each(|object| (self.apply)(Event::InitApply(object)));
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                self.feed.complete();
                (self.apply)(Event::InitDone);
                let version = page.metadata.resource_version.filter(|version| !version.is_empty());
                return version.ok_or_else(|| Failure::Unreadable("a list without a version".to_owned()));
            }
        }
    }

    /// Watches from `version` on. Returns how to continue, and the failure, if any.
    async fn watch(&mut self, mut version: String) -> (From, Option<Failure>) {
        let patience = self.feed.patience();
        let params = WatchParams { field_selector: self.fields.map(str::to_owned), ..WatchParams::default() };
        let params = params.timeout(LIFE);
        let mut events = match within(patience.start, self.api.watch(&params, &version)).await {
            Ok(events) => Box::pin(events),
            Err(failure) => return (Some(version).filter(|_| failure.passing()), Some(failure)),
        };
        self.feed.opened();
        let mut silent = true;
        loop {
            let event = match timeout(patience.silence, events.next()).await {
                Ok(Some(Ok(event))) => event,
                // an event that cannot be parsed does not come again: a list shows its object
                Ok(Some(Err(error))) => {
                    let failure = Failure::from(&error);
                    return (Some(version).filter(|_| failure.passing()), Some(failure));
                }
                Ok(None) if silent => {
                    let failure = Failure::Unreachable("the watch ended without a word".to_owned());
                    return (Some(version), Some(failure));
                }
                Ok(None) => {
                    self.feed.ended();
                    return (Some(version), None);
                }
                Err(_) => return (None, Some(Failure::Silent(patience.silence))),
            };
            let object = match &event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    object.meta().resource_version.clone()
                }
                WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version.clone()),
                // 410: the version is too old; a list recovers from this and any other error
                WatchEvent::Error(status) => {
                    let failure = Failure::Status { code: status.code, reason: status.reason.clone() };
                    return (None, Some(failure));
                }
            };
            if let Some(newer) = object.filter(|newer| !newer.is_empty()) {
                version = newer;
            }
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (self.apply)(Event::Apply(object)),
                WatchEvent::Deleted(object) => (self.apply)(Event::Delete(object)),
                WatchEvent::Bookmark(_) | WatchEvent::Error(_) => {}
            }
            (silent, self.pause) = (false, FIRST_PAUSE);
            self.feed.heard();
        }
    }
}
