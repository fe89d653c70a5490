//! An HTTP server that strangers cannot use up: connections, their buffers and their time are bounded, and where there are
//! too many, the address with the most makes room, with the one that has waited longest without sending a request. So a client
//! that sends whole requests is served while others open connections by the thousand.

mod connections;
mod kept;
mod received;
pub mod tls;

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

pub use connections::{Closer, Limits};
use connections::{Connection, Connections, Entry};
pub use kept::Kept;
use received::Received;
use tls::Tls;

/// What a connection may hold of what was read and not been taken, and of what waits to be written; so also the largest
/// head of a request.
const BUFFER: usize = 64 << 10;
/// The pause after a connection could not be accepted, as without a file descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the listening socket.
///
/// # Errors
/// The system's error, with the address in its text.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// Serves until `token` is cancelled, then finishes the requests in flight. With `tls`, only clients with a certificate.
/// Requests have the [`Closer`] of their connection as an extension.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    limits: Limits,
    token: CancellationToken,
) {
    let connections = Connections::new(limits);
    let tasks = TaskTracker::new();
    while let Some(accepted) = token.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, client)) => {
                // where all are in the middle of a request, the new one is closed
                let Some(entry) = connections.enter(client.ip().to_canonical()) else { continue };
                tasks.spawn(one(stream, entry, tls.clone(), router.clone(), token.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "connection not accepted");
                token.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn one(stream: TcpStream, entry: Entry, tls: Option<Tls>, router: Router, token: CancellationToken) {
    // answers are written as a whole
    let _ = stream.set_nodelay(true);
    let connection = entry.connection();
    let Some(tls) = tls else { return exchange(stream, connection, router, token.cancelled()).await };
    let (config, outdated) = tls.current();
    let ends = async {
        tokio::select! { () = token.cancelled() => {}, () = outdated.cancelled() => {} }
    };
    let handshake = token.run_until_cancelled(connection.unless_closed(tls::accept(config, stream)));
    match handshake.await {
        Some(Some(Ok(stream))) => exchange(stream, connection, router, ends).await,
        Some(Some(Err(error))) => tracing::debug!(%error, "TLS handshake failed"),
        Some(None) | None => {}
    }
}

/// Serves one connection until it ends, is overdue, has to make room; after `drains`, to the end of the request in flight.
async fn exchange<S>(stream: S, connection: &Arc<Connection>, router: Router, drains: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let own = connection.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (router, connection) = (router.clone(), own.clone());
        async move {
            let served = connection.begin();
            let mut request: Request = request.map(|body| Body::new(Received::new(body, connection.clone())));
            request.extensions_mut().insert(connection.closer());
            let Ok(response) = router.oneshot(request).await;
            Ok::<_, Infallible>(response.map(|body| Kept::new(body, served)))
        }
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(BUFFER);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut overdue = pin!(sleep_until(Instant::now()));
    let mut closed = pin!(connection.closed());
    let mut drains = pin!(drains);
    let mut draining = false;
    poll_fn(|context| {
        if closed.as_mut().poll(context).is_ready() || served.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if !draining && drains.as_mut().poll(context).is_ready() {
            draining = true;
            served.as_mut().graceful_shutdown();
            if served.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
        }
        if draining && !connection.in_request() {
            return Poll::Ready(());
        }
        // requests begin and end while the connection is polled, so the deadline changes only here
        let due = connection.due();
        if overdue.deadline() != due {
            overdue.as_mut().reset(due);
        }
        overdue.as_mut().poll(context)
    })
    .await;
}
