//! Programs of the vendors that know more about a GPU's health than its files: asked over a socket at each check.
//!
//! Only an explicit bad report makes a GPU unhealthy. A program that does not run, is slow or does not know the GPU
//! changes nothing.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tonic::transport::Channel;

use crate::base::socket::dial;

/// All questions of one check must be answered within this time.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Empty where there is no answer in time. Blocks; not to be called from an async task.
pub(super) fn blocking<T: Default>(question: impl Future<Output = Option<T>>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return T::default() };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, question).await }).ok().flatten().unwrap_or_default()
}

/// A connection to such a program, if it listens.
pub(super) async fn connect(socket: &Path) -> Option<Channel> {
    let connected = dial(socket).await;
    connected.inspect_err(|error| tracing::debug!(socket = %socket.display(), %error, "no health report")).ok()
}
