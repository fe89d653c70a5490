//! Connections that can be cut without an answer, which no HTTP status can express.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Cuts one connection: from then on nothing is written to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switch(Arc<AtomicBool>);

impl Switch {
    pub(crate) fn cut(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Which connections are frozen: those with a number below this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frozen(Arc<AtomicU64>);

impl Frozen {
    /// Freezes all connections that were accepted so far.
    pub(crate) fn freeze(&self) {
        self.0.store(NEXT.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// Numbers connections in the order in which they are accepted.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A TCP listener whose connections carry a [`Switch`] instead of an address.
#[derive(Debug)]
pub(crate) struct Connections {
    listener: TcpListener,
    frozen: Frozen,
}

impl Connections {
    pub(crate) fn new(listener: TcpListener, frozen: Frozen) -> Self {
        Self { listener, frozen }
    }
}

/// A TCP stream behind a [`Switch`].
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    switch: Switch,
    frozen: Frozen,
    number: u64,
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = Switch;

    async fn accept(&mut self) -> (Connection, Switch) {
        let (stream, _address) = Listener::accept(&mut self.listener).await;
        // An answer is small and the client waits for it: do not let Nagle hold it back.
        let _unsupported = stream.set_nodelay(true);
        let switch = Switch::default();
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        (Connection { stream, switch: switch.clone(), frozen: self.frozen.clone(), number }, switch)
    }

    fn local_addr(&self) -> io::Result<Switch> {
        Ok(Switch::default())
    }
}

impl Connected<IncomingStream<'_, Connections>> for Switch {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        stream.remote_addr().clone()
    }
}

impl Connection {
    fn alive(&self) -> io::Result<()> {
        if self.switch.is_cut() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    /// A task that polls a frozen connection is not woken until the connection is dropped.
    fn is_frozen(&self) -> bool {
        self.number < self.frozen.0.load(Ordering::SeqCst)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.alive()?;
        if self.is_frozen() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.alive()?;
        if self.is_frozen() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive()?;
        if self.is_frozen() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.alive()?;
        if self.is_frozen() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
