//! `/livez`, `/readyz`, `/metrics`, `/version`; and `/debug/state`.
//!
//! What is reported of the whole state takes time and memory, so one report at a time is made, in a thread where it delays
//! nothing else, and few are being sent.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::stream;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::readiness::Readiness;
use super::serving::{self, Kept, Limits};
use super::shutdown::Tasks;

/// A report in pieces of text, each made when the last one has been sent, so that a large state never is in memory as a
/// whole. The function is called in a thread where it may block; the pieces are made beside all other work, so each
/// has to be made quickly.
///
/// For `/debug/state`, JSON; for `/metrics`, series that are too many for the registry
/// ([`GaugeTable`](super::series::GaugeTable)).
pub type Report = Arc<dyn Fn() -> Box<dyn Iterator<Item = String> + Send> + Send + Sync>;

/// What `/readyz` says of a process that is ready.
pub type Standing = Arc<dyn Fn() -> String + Send + Sync>;

/// What strangers may take of metrics and health. Clients that ask at intervals keep their connection.
const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(5),
    idle: Duration::from_secs(75),
    exchange: Duration::from_secs(30),
};

/// What local users may take of `/debug/state`.
const DEBUG: Limits = Limits { connections: 8, ..LIMITS };

/// How many reports may be asked for or on their way to slow readers.
const REPORTS: usize = 4;

/// The contents of the administrative routes.
#[derive(Clone)]
pub struct Admin {
    /// Served under `/metrics`.
    pub registry: Registry,
    /// Served after the registry's metrics.
    pub series: Option<Report>,
    /// Served under `/readyz`.
    pub readiness: Readiness,
    /// Said under `/readyz` beside `ok`.
    pub standing: Option<Standing>,
    /// Name of the program, served under `/version`.
    pub program: &'static str,
    /// Cancelled when the process drains; from then on it is not ready.
    pub draining: CancellationToken,
}

/// The value of `--debug-listen`.
///
/// # Errors
/// Where it is no address, or other machines could reach it.
pub fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|error| format!("{error}"))?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(format!(
        "/debug/state names the pods of all tenants and has no login, so it is served on loopback alone, such as \
         127.0.0.1:{}",
        address.port()
    ))
}

/// Where a program is asked about itself: metrics and health on the one address, `/debug/state` on the other.
#[derive(Debug)]
pub struct Listeners {
    metrics: TcpListener,
    debug: TcpListener,
}

/// Their addresses.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// `/debug/state`
    pub debug: SocketAddr,
}

impl Listeners {
    /// Listens on the values of `--metrics-listen` and `--debug-listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// Where one cannot be listened on; the text names the flag.
    pub async fn open(metrics: SocketAddr, debug: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            metrics: serving::listen(metrics).await.context("--metrics-listen")?,
            debug: serving::listen(debug).await.context("--debug-listen")?,
        })
    }

    /// Where they listen.
    ///
    /// # Errors
    /// Where the system does not say.
    pub fn addresses(&self) -> std::io::Result<Listening> {
        Ok(Listening { metrics: self.metrics.local_addr()?, debug: self.debug.local_addr()? })
    }

    /// Serves both until `tasks` end.
    pub fn serve(self, tasks: &Tasks, admin: Admin, state: Report) {
        self.serve_with(tasks, admin, Router::new(), state);
    }

    /// The same, with `more` beside metrics and health.
    pub fn serve_with(self, tasks: &Tasks, admin: Admin, more: Router, state: Report) {
        let token = tasks.token();
        let (metrics, debug) = (router(admin).merge(more), debug_router(state));
        tasks.spawn("metrics", serving::serve(self.metrics, None, metrics, LIMITS, token.clone()));
        tasks.spawn("debug", serving::serve(self.debug, None, debug, DEBUG, token.clone()));
    }
}

/// Reports of the whole state: one is made at a time.
#[derive(Clone, Debug)]
struct Reports {
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

impl Default for Reports {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(REPORTS)), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Reports {
    /// Makes a report of this kind when its turn comes. `Err` has the answer where none can be made.
    async fn make(
        self,
        kind: &'static str,
        report: impl FnOnce() -> anyhow::Result<Body> + Send + 'static,
    ) -> Result<Response, StatusCode> {
        let busy = |_| StatusCode::SERVICE_UNAVAILABLE;
        let place = self.places.try_acquire_owned().map_err(busy)?;
        let turn = self.turn.acquire_owned().await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let made = tokio::task::spawn_blocking(move || {
            // until the work has ended, even where the caller closes the connection
            let _turn = turn;
            report()
        });
        let body = match made.await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return Err(failed(kind, &error)),
            Err(error) => return Err(failed(kind, &error.into())),
        };
        let kept: Kept<OwnedSemaphorePermit> = Kept::new(body, place);
        let mut response = Response::new(Body::new(kept));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        Ok(response)
    }
}

/// A body that lets other work go on between its pieces.
fn in_pieces(pieces: impl Iterator<Item = String> + Send + 'static) -> Body {
    let pieces = stream::unfold(pieces, |mut pieces| async move {
        tokio::task::yield_now().await;
        pieces.next().map(|piece| (Ok::<_, Infallible>(piece), pieces))
    });
    Body::from_stream(pieces)
}

fn failed(kind: &str, error: &anyhow::Error) -> StatusCode {
    tracing::error!(kind, error = format!("{error:#}"), "report cannot be made");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// The administrative routes, without `/debug/state`.
fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .with_state((admin, Reports::default()))
}

/// `/debug/state`.
fn debug_router(state: Report) -> Router {
    Router::new().route("/debug/state", get(debug)).with_state((state, Reports::default()))
}

async fn debug(State((state, reports)): State<(Report, Reports)>) -> Result<Response, StatusCode> {
    reports.make("application/json", move || Ok(in_pieces(state()))).await
}

async fn readyz(State((admin, _)): State<(Admin, Reports)>) -> Response {
    let mut unmet = admin.readiness.unmet();
    if admin.draining.is_cancelled() {
        unmet.push("draining".to_owned());
    }
    if !unmet.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", unmet.join(", "))).into_response();
    }
    match admin.standing {
        Some(standing) => format!("ok, {}\n", standing()).into_response(),
        None => "ok\n".into_response(),
    }
}

async fn metrics(State((admin, reports)): State<(Admin, Reports)>) -> Result<Response, StatusCode> {
    let report = move || {
        let kept = TextEncoder::new().encode_to_string(&admin.registry.gather())?;
        let Some(series) = admin.series else { return Ok(kept.into()) };
        Ok(in_pieces(std::iter::once(kept).chain(series())))
    };
    reports.make(prometheus::TEXT_FORMAT, report).await
}

async fn version(State((admin, _)): State<(Admin, Reports)>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "program": admin.program, "version": env!("CARGO_PKG_VERSION") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_never_served_to_other_machines() {
        for address in ["127.0.0.1:3458", "127.9.9.9:1", "[::1]:0"] {
            assert_eq!(loopback(address).map(|address| address.to_string()).as_deref(), Ok(address));
        }
        for address in ["0.0.0.0:9395", "10.0.0.1:9395", "[::]:9395"] {
            let error = loopback(address).unwrap_err();
            assert!(error.contains("loopback") && error.ends_with("127.0.0.1:9395"), "{error}");
        }
        assert!(loopback("localhost").is_err());
    }
}
