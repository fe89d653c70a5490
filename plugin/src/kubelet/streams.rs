//! ListAndWatch streams of one socket: whether kubelet listens.

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Since the socket was opened.
    pub opened: u64,
    /// Now.
    pub open: u64,
}

/// Counts a stream until it is dropped.
pub struct Open(watch::Sender<Streams>);

impl Open {
    pub fn new(streams: watch::Sender<Streams>) -> Self {
        streams.send_modify(|streams| {
            streams.opened += 1;
            streams.open += 1;
        });
        Self(streams)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|streams| streams.open = streams.open.saturating_sub(1));
    }
}
