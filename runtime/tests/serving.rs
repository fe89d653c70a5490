//! What clients that send nothing, half or too much can take of a listener.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use kerf_runtime::serving::{Limits, listen, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Long enough for a loaded machine; a passing test never waits this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// No test waits for its end.
const NEVER: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(100);
const LIMITS: Limits = Limits { connections: 4, head: NEVER, idle: NEVER, exchange: NEVER };

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const HALF_HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: ";
const HALF_BODY: &[u8] = b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf";

struct Server {
    address: SocketAddr,
    token: CancellationToken,
    task: JoinHandle<()>,
    /// One answer of `/held` for each permit.
    answer: Arc<Semaphore>,
}

async fn server(limits: Limits) -> Server {
    let answer = Arc::new(Semaphore::new(0));
    let held = answer.clone();
    let router = Router::new()
        .route("/", get(|| async { "answer" }))
        .route("/body", post(|body: String| async move { body }))
        .route(
            "/held",
            post(|_: String| async move {
                held.acquire().await.unwrap().forget();
                "held"
            }),
        )
        .route("/much", get(|| async { "x".repeat(64 << 20) }));
    let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let (address, token) = (listener.local_addr().unwrap(), CancellationToken::new());
    let task = tokio::spawn(serve(listener, None, router, limits, token.clone()));
    Server { address, token, task, answer }
}

impl Server {
    async fn sent(&self, text: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text).await.unwrap();
        stream
    }
}

/// Whether a request is answered on this connection.
async fn answers(stream: &mut TcpStream) -> bool {
    if stream.write_all(GET).await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"answer") {
            if stream.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                return false;
            }
        }
        answer.starts_with(b"HTTP/1.1 200")
    };
    timeout(PATIENCE, read).await.expect("an answer, or the end")
}

/// All that comes until the connection is closed.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // a connection that is reset has ended, too
    let _ = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("closed");
    all
}

#[tokio::test]
async fn a_head_that_does_not_come_closes_its_connection() {
    let server = server(Limits { head: SHORT, ..LIMITS }).await;
    for begun in [b"".as_slice(), HALF_HEAD] {
        assert!(rest(&mut server.sent(begun).await).await.is_empty());
    }
    // the first request came in time, and the next may come later
    assert!(answers(&mut server.sent(b"").await).await);
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let server = server(Limits { idle: SHORT, ..LIMITS }).await;
    for then in [b"".as_slice(), HALF_HEAD] {
        let mut stream = server.sent(b"").await;
        assert!(answers(&mut stream).await);
        stream.write_all(then).await.unwrap();
        assert!(rest(&mut stream).await.is_empty());
    }
}

#[tokio::test]
async fn a_body_that_stops_and_an_answer_that_nobody_reads_end() {
    let server = server(Limits { exchange: SHORT, connections: 1, ..LIMITS }).await;
    assert!(rest(&mut server.sent(HALF_BODY).await).await.is_empty());
    let mut unread = server.sent(b"GET /much HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // the only place is free again although nobody has read the answer
    let free = async { while !answers(&mut server.sent(b"").await).await {} };
    timeout(PATIENCE, free).await.expect("a place");
    assert!(rest(&mut unread).await.len() < 64 << 20);
}

#[tokio::test]
async fn a_client_that_sends_whole_requests_is_served_however_many_others_wait() {
    let server = server(LIMITS).await;
    let mut client = server.sent(b"").await;
    let mut others = Vec::new();
    for number in 0..100 {
        assert!(answers(&mut client).await, "after {number} others");
        others.push(server.sent(if number % 2 == 0 { HALF_HEAD } else { b"" }).await);
    }
    assert!(answers(&mut server.sent(b"").await).await, "a new one makes one of the others go");
    for other in others.iter_mut().take(90) {
        assert!(rest(other).await.is_empty());
    }
}

/// A request that is answered only when it is told to.
const HELD: &[u8] = b"POST /held HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody";

#[tokio::test]
async fn whose_request_is_being_worked_on_does_not_make_room() {
    let server = server(LIMITS).await;
    let mut works = Vec::new();
    for _ in 0..LIMITS.connections {
        let mut stream = server.sent(b"").await;
        assert!(answers(&mut stream).await);
        stream.write_all(HELD).await.unwrap();
        works.push(stream);
    }
    // that all four are being served is seen from outside only by what is refused
    let refused = async { while answers(&mut server.sent(b"").await).await {} };
    timeout(PATIENCE, refused).await.expect("refused");
    server.answer.add_permits(works.len());
    for work in &mut works {
        let mut answer = Vec::new();
        while !answer.ends_with(b"held") {
            assert!(work.read_buf(&mut answer).await.unwrap() > 0);
        }
    }
    assert!(answers(&mut server.sent(b"").await).await);
}

/// They all come from one address, as everything does on loopback.
#[tokio::test]
async fn half_requests_keep_nobody_out_who_sends_whole_ones() {
    let server = server(LIMITS).await;
    let mut client = server.sent(b"").await;
    let mut halves = Vec::new();
    for number in 0..100 {
        assert!(answers(&mut client).await, "after {number} halves");
        assert!(answers(&mut server.sent(b"").await).await, "a new one, after {number} halves");
        halves.push(server.sent(HALF_BODY).await);
    }
    for half in halves.iter_mut().take(90) {
        assert!(rest(half).await.is_empty());
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let server = server(LIMITS).await;
    let mut stream = server.sent(b"GET / HTTP/1.1\r\nhost: x\r\nlong: ").await;
    // the connection may be closed while this is being written
    let _ = stream.write_all(&vec![b'x'; 1 << 20]).await;
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert!(answers(&mut server.sent(b"").await).await);
}

#[tokio::test]
async fn it_drains_with_what_was_asked_and_without_waiting_for_the_idle() {
    let server = server(LIMITS).await;
    let mut idle = server.sent(b"").await;
    assert!(answers(&mut idle).await);
    let mut silent = server.sent(HALF_HEAD).await;
    let mut half = server.sent(b"").await;
    assert!(answers(&mut half).await);
    half.write_all(HALF_BODY).await.unwrap();
    // accepted and read, once another that came later has been served
    let mut later = server.sent(b"").await;
    assert!(answers(&mut later).await);
    server.token.cancel();
    for stream in [&mut idle, &mut silent, &mut later] {
        assert!(rest(stream).await.is_empty());
    }
    half.write_all(b" done").await.unwrap();
    assert!(rest(&mut half).await.ends_with(b"half done"));
    timeout(PATIENCE, server.task).await.expect("drained").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
