//! `/livez`, `/readyz`, `/metrics`, `/version`, `/debug/state`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::stream;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::readiness::Readiness;

/// The content of `/debug/state`, made for each request.
pub type DebugState = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// More of `/metrics`, in pieces of text, made for each request: series that are too many for the registry
/// ([`GaugeTable`](super::series::GaugeTable)). Called in a thread where it may block.
pub type Series = Arc<dyn Fn() -> Box<dyn Iterator<Item = String> + Send> + Send + Sync>;

/// The contents of the administrative routes.
#[derive(Clone)]
pub struct Admin {
    /// Served under `/metrics`.
    pub registry: Registry,
    /// Served after the registry's metrics.
    pub series: Option<Series>,
    /// Served under `/readyz`.
    pub readiness: Readiness,
    /// Served under `/debug/state`.
    pub debug: DebugState,
    /// Name of the program, served under `/version`.
    pub program: &'static str,
    /// Cancelled when the process drains; from then on it is not ready.
    pub draining: CancellationToken,
}

/// The administrative routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .route("/debug/state", get(|State(admin): State<Admin>| async move { Json((admin.debug)()) }))
        .with_state(admin)
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let mut unmet = admin.readiness.unmet();
    if admin.draining.is_cancelled() {
        unmet.push("draining".to_owned());
    }
    if unmet.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", unmet.join(", "))).into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let kept = match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let kind = [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)];
    let Some(series) = admin.series else { return (kind, kept).into_response() };
    match tokio::task::spawn_blocking(move || series()).await {
        Ok(series) => {
            let pieces = std::iter::once(kept).chain(series).map(Ok::<_, Infallible>);
            (kind, Body::from_stream(stream::iter(pieces))).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn version(State(admin): State<Admin>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "program": admin.program, "version": env!("CARGO_PKG_VERSION") }))
}

/// Opens the listening socket.
///
/// # Errors
/// The system's error, with the address in its text.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// Serves until `token` is cancelled, then finishes the requests in flight.
pub async fn serve(listener: TcpListener, router: Router, token: CancellationToken) {
    let served = axum::serve(listener, router).with_graceful_shutdown(token.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "HTTP server failed");
    }
}
