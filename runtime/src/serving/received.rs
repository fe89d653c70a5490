//! The body of a request, which tells its connection when it has come to its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::connections::Connection;

#[derive(Debug)]
pub(super) struct Received {
    body: Incoming,
    connection: Arc<Connection>,
}

impl Received {
    pub fn new(body: Incoming, connection: Arc<Connection>) -> Self {
        let received = Self { body, connection };
        received.look();
        received
    }

    fn look(&self) {
        if self.body.is_end_stream() {
            self.connection.received();
        }
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(None) => self.connection.received(),
            Poll::Ready(Some(Ok(_))) => self.look(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
