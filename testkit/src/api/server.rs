//! From an HTTP request to the store and back, with faults, pauses and tallies on the way.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::call::{Answer, Ask, reply};
use super::connection::Switch;
use super::failure::Failure;
use super::fault::{Action, Injected};
use super::object;
use super::reading;
use super::resource::Target;
use super::shared::Inner;
use super::tally::Write;
use super::writing;

/// Larger than any body that a cluster's client sends, in bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// The only route: the handler parses the path.
pub(crate) async fn serve(
    State(inner): State<Arc<Inner>>,
    ConnectInfo(switch): ConnectInfo<Switch>,
    request: Request,
) -> Response {
    let path = request.uri().path().to_owned();
    if matches!(path.as_str(), "/healthz" | "/livez" | "/readyz") {
        return "ok".into_response();
    }
    if path == "/version" {
        return version(&inner, &header_text(request.headers(), header::USER_AGENT));
    }
    if path.contains("/proxy/") {
        return proxied(&inner, &path, &header_text(request.headers(), header::USER_AGENT));
    }
    let mut resumed = inner.paused.subscribe();
    tokio::select! {
        _ = resumed.wait_for(|paused| !paused) => {}
        () = inner.closing.cancelled() => return cut(&switch),
    }
    match read(&path, request).await {
        Ok((method, ask)) => handle(&inner, &switch, &method, ask).await,
        Err(failure) => failure.into_response(),
    }
}

/// Not counted; of faults only a status applies.
fn version(inner: &Inner, agent: &str) -> Response {
    if let Some(Action::Status(code)) = inner.faults.hit("get", "version", "", agent).as_ref().map(Injected::action)
    {
        return Failure::injected(code).into_response();
    }
    let git = inner.version.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut numbers = git.trim_start_matches('v').split('.');
    let [major, minor] = std::array::from_fn(|_| numbers.next().unwrap_or_default().to_owned());
    reply(StatusCode::OK, json!({ "major": major, "minor": minor, "gitVersion": git }).to_string())
}

/// What a pod serves: `.../pods/<name>:<port>/proxy/<path>`. Of faults only a status applies, to `get pods/proxy`.
fn proxied(inner: &Inner, path: &str, agent: &str) -> Response {
    let pod =
        path.split_once("/pods/").and_then(|(_, rest)| rest.split_once([':', '/'])).map_or("", |(pod, _)| pod);
    if let Some(Action::Status(code)) =
        inner.faults.hit("get", "pods/proxy", pod, agent).as_ref().map(Injected::action)
    {
        return Failure::injected(code).into_response();
    }
    let known = inner.proxied.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
    known.map_or_else(|| Failure::not_found("pods", pod).into_response(), IntoResponse::into_response)
}

async fn read(path: &str, request: Request) -> Result<(Method, Ask), Failure> {
    let target = Target::parse(path)?;
    let (parts, body) = request.into_parts();
    let Query(query) = Query::<HashMap<String, String>>::try_from_uri(&parts.uri)
        .map_err(|error| Failure::bad_request(error.to_string()))?;
    let body = to_bytes(body, MAX_BODY).await.map_err(|error| Failure::bad_request(error.to_string()))?;
    Ok((
        parts.method,
        Ask {
            target,
            query,
            content_type: header_text(&parts.headers, header::CONTENT_TYPE),
            agent: header_text(&parts.headers, header::USER_AGENT),
            body,
        },
    ))
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Kubernetes' verb for a request.
fn verb(method: &Method, ask: &Ask) -> Option<&'static str> {
    match (method.as_str(), ask.target.name.is_some()) {
        ("GET", true) => Some("get"),
        ("GET", false) if ask.flag("watch") => Some("watch"),
        ("GET", false) => Some("list"),
        ("POST", _) => Some("create"),
        ("PUT", true) => Some("update"),
        ("PATCH", true) => Some("patch"),
        ("DELETE", true) => Some("delete"),
        _ => None,
    }
}

async fn handle(inner: &Arc<Inner>, switch: &Switch, method: &Method, ask: Ask) -> Response {
    let Some(verb) = verb(method, &ask) else {
        return Failure::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .into_response();
    };
    let resource = ask.target.counted_as();
    let name = match (&ask.target.name, verb) {
        (Some(name), _) => name.clone(),
        (None, "create") => ask.json().map(|body| object::name(&body).to_owned()).unwrap_or_default(),
        (None, _) => String::new(),
    };
    inner.tally.request(verb, &resource);
    let fault = inner.faults.hit(verb, &resource, &name, &ask.agent);
    match fault.as_ref().map(Injected::action) {
        Some(Action::Delay(time)) => tokio::time::sleep(time).await,
        Some(Action::Hold) => {
            tokio::select! {
                () = held(fault.as_ref()) => {}
                () = inner.closing.cancelled() => return cut(switch),
            }
        }
        _ => {}
    }
    let action = fault.as_ref().map(Injected::action);
    if matches!(verb, "get" | "list" | "watch") {
        return match action {
            Some(Action::Status(code)) => Failure::injected(code).into_response(),
            Some(Action::DropBefore | Action::DropAfter) => cut(switch),
            Some(Action::HoldAnswer) => {
                let answer = read_only(inner, verb, ask);
                answer_later(inner, switch, fault.as_ref(), answer).await
            }
            _ => read_only(inner, verb, ask),
        };
    }
    let result = match action {
        Some(Action::Status(code)) => Err(Failure::injected(code)),
        Some(Action::DropBefore) => Err(Failure::injected(503)),
        _ => write(inner, verb, &ask),
    };
    let dropped = matches!(action, Some(Action::DropBefore | Action::DropAfter));
    inner.tally.write(Write {
        verb: verb.to_owned(),
        resource,
        namespace: ask.target.namespace.clone().unwrap_or_default(),
        name: result.as_ref().ok().and_then(|answer| answer.name()).unwrap_or(name),
        code: result.as_ref().map_or_else(|failure| failure.code, |answer| answer.code().as_u16()),
        answered: !dropped,
        agent: ask.agent,
    });
    if dropped {
        switch.cut();
    }
    let answer = result.map_or_else(IntoResponse::into_response, IntoResponse::into_response);
    match action {
        Some(Action::HoldAnswer) => answer_later(inner, switch, fault.as_ref(), answer).await,
        _ => answer,
    }
}

/// Holds an answer until the fault is released.
async fn answer_later(inner: &Inner, switch: &Switch, fault: Option<&Injected>, answer: Response) -> Response {
    tokio::select! {
        () = held(fault) => answer,
        () = inner.closing.cancelled() => cut(switch),
    }
}

async fn held(fault: Option<&Injected>) {
    if let Some(fault) = fault {
        fault.held().await;
    }
}

/// Ends a request without an answer; the returned response is never written.
fn cut(switch: &Switch) -> Response {
    switch.cut();
    StatusCode::SERVICE_UNAVAILABLE.into_response()
}

fn read_only(inner: &Arc<Inner>, verb: &str, ask: Ask) -> Response {
    let result = match verb {
        "get" => reading::get(inner, &ask),
        "list" => reading::list(inner, &ask),
        _ => reading::watch(inner, ask),
    };
    result.map_or_else(IntoResponse::into_response, |body| reply(StatusCode::OK, body))
}

fn write(inner: &Inner, verb: &str, ask: &Ask) -> Result<Answer, Failure> {
    inner.change(ask.target.resource, |store| match verb {
        "create" => writing::create(store, ask),
        "update" => writing::update(store, ask),
        "patch" => writing::patch(store, ask),
        _ => writing::delete(store, ask),
    })
}
