//! The first signal drains, the second aborts; and a task that ends too early ends the process, with a log line.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Exit status after a second signal: work was aborted.
pub const ABORTED: i32 = 130;

/// The tasks of a process and the one token that stops them all.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// Tasks that stop when `token` is cancelled.
    pub fn new(token: CancellationToken) -> Self {
        Self { token, tracker: TaskTracker::new() }
    }

    /// Cancelled when the process is to drain.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Runs a task that must last as long as the process. Where it ends before the token is cancelled, that is logged
    /// as an error with its name, and the process drains.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.tracker.spawn(async move {
            // a panic of the inner task must end the process too, hence the second task
            let ended = tokio::spawn(task).await;
            if !token.is_cancelled() {
                let panicked = ended.is_err();
                tracing::error!(task = name, panicked, "task ended; shutting down");
                token.cancel();
            }
        });
    }

    /// Runs a task that ends by itself but must be waited for on shutdown.
    pub fn spawn_short<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Waits until the token is cancelled and every task has ended.
    pub async fn drained(&self) {
        self.token.cancelled().await;
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Cancels the token at the first SIGTERM or SIGINT; ends the process with [`ABORTED`] at the second.
    ///
    /// # Errors
    /// Where the signals cannot be listened to.
    pub fn obey_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = self.token.clone();
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let signal = next().await;
            tracing::info!(signal, "draining; a second signal aborts");
            token.cancel();
            let signal = next().await;
            tracing::warn!(signal, "aborted");
            std::process::exit(ABORTED);
        });
        Ok(())
    }
}
