//! Clients that misbehave: heads and bodies that do not end, bodies that are too large, names without end, answers that
//! nobody reads.
//!
//! They go on until they are dropped, each kind as fast as it is served; [`Attack::rounds`] counts what each has done.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections that each of the two kinds keeps open at once.
const CONNECTIONS: usize = 2_000;
/// Bodies that are begun and never ended, at once.
const HALF_BODIES: usize = 32;
/// A client does not wait longer for the server.
const LONGEST: Duration = Duration::from_secs(10);

/// The kinds of misbehaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Heads without end, over 2,000 connections.
    Heads,
    /// Bodies that stop before their end.
    HalfBodies,
    /// Bodies of a GiB.
    HugeBodies,
    /// A million names.
    Names,
    /// Reports that are asked for and not read.
    Unread,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Heads, Self::HalfBodies, Self::HugeBodies, Self::Names, Self::Unread];
}

/// What an attack is on.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The address for the scheduler.
    pub scheduler: SocketAddr,
    /// The address of metrics.
    pub metrics: SocketAddr,
    /// The address of `/debug/state`.
    pub debug: SocketAddr,
    /// The longest body that is served, in bytes.
    pub largest: usize,
}

/// Attackers at work, until it is dropped.
#[derive(Debug)]
pub struct Attack {
    rounds: [Arc<AtomicU64>; 5],
    tasks: JoinSet<()>,
}

impl Attack {
    /// Begins all kinds at once.
    pub fn begin(target: Target) -> Self {
        let mut attack = Self { rounds: Default::default(), tasks: JoinSet::new() };
        for (kind, rounds) in Kind::ALL.into_iter().zip(&attack.rounds) {
            let rounds = rounds.clone();
            match kind {
                Kind::Heads => {
                    for address in [target.scheduler, target.metrics] {
                        attack.tasks.spawn(heads(address, rounds.clone()));
                    }
                }
                Kind::HalfBodies => drop(attack.tasks.spawn(half_bodies(target, rounds))),
                Kind::HugeBodies => drop(attack.tasks.spawn(huge_bodies(target, rounds))),
                Kind::Names => drop(attack.tasks.spawn(names(target, rounds))),
                Kind::Unread => drop(attack.tasks.spawn(unread(target, rounds))),
            }
        }
        attack
    }

    /// How often each kind has done what it does.
    pub fn rounds(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().zip(self.rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed)))
    }
}

fn count(rounds: &AtomicU64) {
    rounds.fetch_add(1, Ordering::Relaxed);
}

/// A connection on which as much of this was sent as the server took.
async fn sent(address: SocketAddr, parts: &[&[u8]]) -> std::io::Result<TcpStream> {
    let send = async {
        let mut stream = TcpStream::connect(address).await?;
        for part in parts {
            stream.write_all(part).await?;
        }
        Ok(stream)
    };
    timeout(LONGEST, send).await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}

/// What comes back until the server closes the connection.
async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // a connection that is reset has ended as well
    let _ = timeout(LONGEST, stream.read_to_end(&mut answer)).await;
    answer
}

async fn heads(address: SocketAddr, rounds: Arc<AtomicU64>) {
    let short = "POST /scheduler/filter HTTP/1.1\r\nhost: x\r\nlong: ";
    let long = format!("{short}{}", "x".repeat(60 << 10));
    let mut open = VecDeque::new();
    for number in 0_u64.. {
        let head = if number.is_multiple_of(8) { &long } else { short };
        if let Ok(stream) = sent(address, &[head.as_bytes()]).await {
            open.push_back(stream);
            count(&rounds);
        }
        if open.len() > CONNECTIONS {
            open.pop_front();
        }
    }
}

fn post(length: usize) -> String {
    format!("POST /scheduler/filter HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n")
}

async fn half_bodies(target: Target, rounds: Arc<AtomicU64>) {
    let (head, half) = (post(target.largest), vec![b' '; target.largest - 1]);
    let mut open = VecDeque::new();
    loop {
        if let Ok(stream) = sent(target.scheduler, &[head.as_bytes(), &half]).await {
            open.push_back(stream);
        }
        // the server may have closed it before it took all
        count(&rounds);
        if open.len() > HALF_BODIES {
            open.pop_front();
        }
    }
}

async fn huge_bodies(target: Target, rounds: Arc<AtomicU64>) {
    let (length, piece) = (1 << 30, vec![b' '; 1 << 20]);
    let (known, unknown) =
        (post(length), "POST /scheduler/filter HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
    loop {
        for (head, piece) in [(known.as_str(), &piece), (unknown, &chunk)] {
            let Ok(mut stream) = sent(target.scheduler, &[head.as_bytes()]).await else { continue };
            // until the server has closed it
            while let Ok(Ok(())) = timeout(LONGEST, stream.write_all(piece)).await {}
            count(&rounds);
        }
    }
}

async fn names(target: Target, rounds: Arc<AtomicU64>) {
    let body = format!("{{\"Pod\":{{}},\"NodeNames\":[{}\"\"]}}", "\"\",".repeat(999_999));
    let head = post(body.len());
    loop {
        if let Ok(mut stream) = sent(target.scheduler, &[head.as_bytes(), body.as_bytes()]).await {
            answer(&mut stream).await;
            count(&rounds);
        }
    }
}

async fn unread(target: Target, rounds: Arc<AtomicU64>) {
    let mut open = VecDeque::new();
    loop {
        for (address, path) in [(target.metrics, "/metrics"), (target.debug, "/debug/state")] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            if let Ok(stream) = sent(address, &[request.as_bytes()]).await {
                open.push_back(stream);
                count(&rounds);
            }
        }
        if open.len() > CONNECTIONS {
            open.pop_front();
            open.pop_front();
        }
    }
}
