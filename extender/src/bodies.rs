//! The memory that calls hold: bodies that are being read or worked on, and answers that have not been sent.
//!
//! Where there is no more, the call that has been sending its body, or reading its answer, for longest makes room: a
//! scheduler sends and reads in milliseconds.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use kerf_runtime::serving::{Closer, Kept};
use parking_lot::Mutex;
use tokio::time::timeout;

/// In bytes, for all calls together.
const LEAST: usize = 64 << 20;
/// How many of the largest bodies have room.
const LARGEST: usize = 2;
/// The longest time for the body of a call.
const DEADLINE: Duration = Duration::from_secs(2);
/// Of an answer, what is handed to the connection at a time. The rest is dropped with the connection.
const PIECE: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Bodies {
    /// Of one body, in bytes.
    largest: usize,
    /// Of all together.
    most: usize,
    /// From a call's head to the end of its body.
    deadline: Duration,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    held: usize,
    /// In the order in which they began.
    open: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    bytes: usize,
    /// While the client is what it waits for.
    closer: Option<Closer>,
}

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unread {
    #[error("request cannot be read, or is larger than {} MiB (--max-body-mib)", .most >> 20)]
    TooLarge { most: usize },
    #[error("request broke off")]
    BrokenOff,
    #[error("request did not arrive within {} s", DEADLINE.as_secs())]
    Slow,
    #[error("extender is busy: other calls hold its memory for requests")]
    Full,
}

/// What one call holds, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    all: Arc<Bodies>,
    number: u64,
    closer: Closer,
}

impl Bodies {
    /// `largest`: in bytes, of one body.
    pub fn new(largest: usize) -> Arc<Self> {
        Arc::new(Self { largest, most: LEAST.max(LARGEST * largest), deadline: DEADLINE, calls: Mutex::default() })
    }

    /// Reads a body.
    pub async fn read(self: &Arc<Self>, body: Body, closer: Closer) -> Result<(Bytes, Arc<Room>), Unread> {
        let most = self.largest;
        let announced = body.size_hint().lower();
        if usize::try_from(announced).map_or(true, |announced| announced > most) {
            return Err(Unread::TooLarge { most });
        }
        let room = self.enter(closer);
        let read = async {
            let mut bytes = Vec::new();
            let mut body = body;
            while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
                let Ok(piece) = frame.map_err(|_| Unread::BrokenOff)?.into_data() else { continue };
                if bytes.len() + piece.len() > most {
                    return Err(Unread::TooLarge { most });
                }
                if !room.take(piece.len()) {
                    return Err(Unread::Full);
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(Bytes::from(bytes))
        };
        let bytes = timeout(self.deadline, read).await.map_err(|_| Unread::Slow)??;
        room.waits_for_client(false);
        Ok((bytes, Arc::new(room)))
    }

    fn enter(self: &Arc<Self>, closer: Closer) -> Room {
        let mut calls = self.calls.lock();
        calls.next += 1;
        let number = calls.next;
        calls.open.insert(number, Held { bytes: 0, closer: Some(closer.clone()) });
        Room { all: self.clone(), number, closer }
    }
}

impl Room {
    /// Adds so many bytes. Where there is no room for them, other calls that wait for their clients are closed, the
    /// oldest first; `false` where there are none.
    fn take(&self, bytes: usize) -> bool {
        let mut calls = self.all.calls.lock();
        while calls.held + bytes > self.all.most {
            let waits =
                |(number, held): &(&u64, &Held)| **number != self.number && held.bytes > 0 && held.closer.is_some();
            let Some(oldest) = calls.open.iter().find(waits).map(|(number, _)| *number) else { return false };
            calls.release(oldest);
        }
        // closed by another: its memory is not counted any more, and soon gone
        let Some(held) = calls.open.get_mut(&self.number) else { return false };
        held.bytes += bytes;
        calls.held += bytes;
        true
    }

    fn waits_for_client(&self, waits: bool) {
        if let Some(held) = self.all.calls.lock().open.get_mut(&self.number) {
            held.closer = waits.then(|| self.closer.clone());
        }
    }

    /// Gives the answer to the connection piece by piece, counted until the last one.
    pub fn send(self: Arc<Self>, answer: Response) -> Response {
        let length = answer.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
        match length {
            Some(length) if length > PIECE => {
                self.waits_for_client(true);
                if !self.take(length) {
                    self.closer.close();
                }
                answer.map(|body| Body::new(Kept::new(Body::new(Pieces { body, rest: Bytes::new() }), self)))
            }
            _ => answer,
        }
    }
}

impl Calls {
    /// Closes a call's connection.
    fn release(&mut self, number: u64) {
        if let Some(held) = self.open.remove(&number) {
            self.held -= held.bytes;
            if let Some(closer) = held.closer {
                closer.close();
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut calls = self.all.calls.lock();
        if let Some(held) = calls.open.remove(&self.number) {
            calls.held -= held.bytes;
        }
    }
}

/// A body in pieces of their own: what a connection has not sent yet keeps no more of it in memory.
struct Pieces {
    body: Body,
    rest: Bytes,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return other,
            }
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::copy_from_slice(&piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let rest = self.rest.len() as u64;
        match self.body.size_hint().exact() {
            Some(length) => http_body::SizeHint::with_exact(length + rest),
            None => http_body::SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use futures::{StreamExt, stream};

    use super::*;

    const MIB: usize = 1 << 20;

    /// A body that never ends, after so many bytes.
    fn unfinished(bytes: usize) -> Body {
        let begun = stream::iter([Ok::<_, std::io::Error>(vec![b' '; bytes])]);
        Body::from_stream(begun.chain(stream::pending()))
    }

    fn held(all: &Bodies) -> usize {
        all.calls.lock().held
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_is_given_up_and_frees_its_room() {
        let deadline = Duration::from_millis(20);
        let all = Arc::new(Bodies { largest: 8 * MIB, most: LEAST, deadline, calls: Mutex::default() });
        let error = all.read(unfinished(5), Closer::default()).await.unwrap_err();
        assert_eq!((error, held(&all)), (Unread::Slow, 0));
        let error = all.read(unfinished(9 * MIB), Closer::default()).await.unwrap_err();
        assert_eq!((error, held(&all)), (Unread::TooLarge { most: 8 * MIB }, 0));
    }

    #[tokio::test]
    async fn who_has_been_sending_for_longest_makes_room_and_no_call_that_is_worked_on() {
        let all = Bodies::new(8 * MIB);
        let (_, worked_on) = all.read(vec![b' '; 8 * MIB].into(), Closer::default()).await.unwrap();
        let slow: Vec<_> = (0..7).map(|_| all.enter(Closer::default())).collect();
        assert!(slow.iter().all(|room| room.take(8 * MIB)));
        assert_eq!(held(&all), 64 * MIB);
        let (_, one) = all.read(vec![b' '; 3].into(), Closer::default()).await.unwrap();
        assert_eq!(held(&all), 56 * MIB + 3);
        assert!(!slow[0].take(1), "closed");
        let open = |room: &Room| all.calls.lock().open.contains_key(&room.number);
        assert!(open(&worked_on) && slow[1..].iter().all(open) && open(&one));
        drop((slow, one));
        assert_eq!(held(&all), 8 * MIB);
    }

    #[tokio::test]
    async fn where_all_room_is_worked_on_a_call_is_refused() {
        let all = Bodies::new(32 * MIB);
        let full = || all.read(vec![b' '; 32 * MIB].into(), Closer::default());
        let _both = (full().await.unwrap(), full().await.unwrap());
        assert_eq!(all.read("x".into(), Closer::default()).await.unwrap_err(), Unread::Full);
    }

    #[tokio::test]
    async fn an_answer_is_counted_until_it_has_been_read() {
        let all = Bodies::new(8 * MIB);
        let (_, room) = all.read("x".into(), Closer::default()).await.unwrap();
        let text = "0123456789".repeat(MIB);
        let answer = room.send(text.clone().into_response());
        assert_eq!(answer.body().size_hint().exact(), Some(text.len() as u64));
        assert_eq!(held(&all), 1 + text.len());
        let pieces: Vec<Bytes> = answer.into_body().into_data_stream().map(|piece| piece.unwrap()).collect().await;
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE));
        assert!(pieces.concat() == text.as_bytes());
        assert_eq!(held(&all), 0);
    }
}
