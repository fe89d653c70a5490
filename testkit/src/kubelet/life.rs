//! The time from one start of kubelet to its end, with the tasks of that time.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One run of the kubelet program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) token: CancellationToken,
    tasks: TaskTracker,
}

impl Life {
    /// Runs a task that ends with this run of kubelet.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = token.cancelled() => {}
            }
        });
    }

    /// Runs a task that handles its own end.
    pub(crate) fn spawn_whole(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    pub(crate) async fn end(&self) {
        self.token.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
