//! List, then watch, then list again when the history is lost: what client-go's informers do.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{ApiClient, ApiError};
use crate::api::object;

/// Pause before a failed request is tried again.
const RETRY: Duration = Duration::from_millis(50);
const PAGE: &str = "500";

/// A change that an informer sees.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// All objects; any other object is gone.
    Listed(Vec<Arc<Value>>),
    /// An object is new or has changed.
    Applied(Arc<Value>),
    /// An object is gone, or has left the selection.
    Deleted(Arc<Value>),
}

#[derive(Deserialize)]
struct Line {
    r#type: String,
    object: Value,
}

/// Follows the objects at a path until cancelled, or until `tell` returns that there is no listener any more.
pub(crate) async fn follow(
    client: ApiClient,
    path: &'static str,
    fields: String,
    cancel: CancellationToken,
    mut tell: impl FnMut(News) -> bool + Send,
) {
    let following = async {
        loop {
            match list(&client, path, &fields).await {
                Ok((objects, version)) => {
                    if !tell(News::Listed(objects)) {
                        return;
                    }
                    let mut version = version;
                    while let Ok(next) = watch(&client, path, &fields, &mut version, &mut tell).await {
                        if next == Next::Stop {
                            return;
                        }
                        if next == Next::Pause {
                            tokio::time::sleep(RETRY).await;
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, path, "list failed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    };
    tokio::select! {
        () = following => {}
        () = cancel.cancelled() => {}
    }
}

async fn list(client: &ApiClient, path: &str, fields: &str) -> Result<(Vec<Arc<Value>>, String), ApiError> {
    let mut objects = Vec::new();
    let mut token = String::new();
    loop {
        let mut query = vec![("limit", PAGE)];
        if !fields.is_empty() {
            query.push(("fieldSelector", fields));
        }
        if !token.is_empty() {
            query.push(("continue", &token));
        }
        let mut page = client.get(path, &query).await?;
        if let Some(items) = page.get_mut("items").and_then(Value::as_array_mut) {
            objects.extend(items.drain(..).map(Arc::new));
        }
        token = object::text(&page, &["metadata", "continue"]).to_owned();
        if token.is_empty() {
            let version = object::text(&page, &["metadata", "resourceVersion"]);
            return Ok((objects, version.to_owned()));
        }
    }
}

/// What to do after a watch has ended.
#[derive(PartialEq, Eq)]
enum Next {
    Watch,
    Pause,
    Stop,
}

/// The history is lost.
struct Expired;

async fn watch(
    client: &ApiClient,
    path: &str,
    fields: &str,
    version: &mut String,
    tell: &mut (impl FnMut(News) -> bool + Send),
) -> Result<Next, Expired> {
    let asked = version.clone();
    let mut query = vec![
        ("watch", "true"),
        ("allowWatchBookmarks", "true"),
        ("timeoutSeconds", "300"),
        ("resourceVersion", &asked),
    ];
    if !fields.is_empty() {
        query.push(("fieldSelector", fields));
    }
    let Ok(url) = client.url_with(path, &query) else {
        return Ok(Next::Stop);
    };
    let Ok(mut response) = client.http.get(url).send().await else {
        return Ok(Next::Pause);
    };
    if response.status().as_u16() == 410 {
        return Err(Expired);
    }
    if !response.status().is_success() {
        return Ok(Next::Pause);
    }
    let mut buffer: Vec<u8> = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        buffer.extend_from_slice(&chunk);
        let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else {
            continue;
        };
        let rest = buffer.split_off(end + 1);
        let whole = std::mem::replace(&mut buffer, rest);
        for text in whole.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
            let Ok(line) = serde_json::from_slice::<Line>(text) else {
                return Ok(Next::Pause);
            };
            if line.r#type == "ERROR" {
                return Err(Expired);
            }
            object::text(&line.object, &["metadata", "resourceVersion"]).clone_into(version);
            let object = Arc::new(line.object);
            let heard = match line.r#type.as_str() {
                "ADDED" | "MODIFIED" => tell(News::Applied(object)),
                "DELETED" => tell(News::Deleted(object)),
                _ => true,
            };
            if !heard {
                return Ok(Next::Stop);
            }
        }
    }
    Ok(Next::Watch)
}
