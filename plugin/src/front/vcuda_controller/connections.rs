//! The connections of one container's socket, of which only so many are open at a time: a tenant that opens more waits, and takes
//! no more of the plugin's memory.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::{Connected, UdsConnectInfo};

/// A connection, which gives its place to the next one when it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    _place: Option<OwnedSemaphorePermit>,
}

/// The connections of a listener. There is a next one while fewer than `most` are open.
pub fn at_most(listener: UnixListener, most: usize) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(most));
    UnixListenerStream::new(listener).then(move |opened| {
        let places = Arc::clone(&places);
        async move {
            let stream = opened?;
            // it fails only where it was closed, which nobody does
            let place = places.acquire_owned().await.ok();
            Ok(Connection { stream, _place: place })
        }
    })
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_next_connection_waits_until_one_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let mut connections = Box::pin(at_most(UnixListener::bind(&socket).unwrap(), 2));
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(UnixStream::connect(&socket).await.unwrap());
        }
        let first = connections.next().await.unwrap().unwrap();
        let _second = connections.next().await.unwrap().unwrap();
        assert!(connections.next().now_or_never().is_none(), "a third one");
        drop(first);
        connections.next().await.unwrap().unwrap();
    }
}
