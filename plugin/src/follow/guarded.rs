//! A driver may hang. Its calls run on a blocking thread, one at a time, and are given up on after a while. Until
//! the hung call returns no other is made, and the GPUs count as unhealthy.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::base::counters::Counters;
use crate::device::backend::{Backend, BackendError, BackendFactory};

/// A driver that does not answer within this time hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A driver whose calls have a deadline.
#[derive(Clone)]
pub struct GuardedBackend {
    backend: Arc<dyn Backend>,
    busy: Arc<Semaphore>,
    counters: Counters,
}

impl GuardedBackend {
    pub fn new(backend: &BackendFactory, counters: &Counters) -> Self {
        Self { backend: backend.open(), busy: Arc::new(Semaphore::new(1)), counters: counters.clone() }
    }

    /// Calls the driver. `question` names the call in errors.
    ///
    /// # Errors
    /// The driver's, or that there is no answer in time.
    pub async fn ask<T, F>(&self, question: &'static str, ask: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Backend) -> Result<T, BackendError> + Send + 'static,
    {
        let slow = |reason: &str| BackendError::Failed {
            backend: self.backend.name(),
            question,
            reason: reason.to_owned(),
        };
        let backend = Arc::clone(&self.backend);
        let asked = async {
            let permit = Arc::clone(&self.busy).acquire_owned().await;
            let answered = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                ask(backend.as_ref())
            });
            answered.await
        };
        let (kind, error) = match timeout(PATIENCE, asked).await {
            Ok(Ok(Ok(answer))) => return Ok(answer),
            Ok(Ok(Err(error))) => (error.code(), error),
            Ok(Err(_)) => ("failed", slow("the call panicked")),
            Err(_) => ("slow", slow("no answer in time")),
        };
        self.counters.backend_errors.with_label_values(&[kind]).inc();
        Err(error)
    }
}
