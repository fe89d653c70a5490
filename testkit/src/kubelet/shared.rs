//! State that all tasks of a kubelet share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::books::Books;
use super::call::Call;
use super::config::KubeletConfig;
use crate::api::object;
use crate::client::ApiClient;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: KubeletConfig,
    pub(crate) client: ApiClient,
    books: Mutex<Books>,
    calls: Mutex<Vec<Call>>,
    rng: Mutex<StdRng>,
    /// Raised whenever books or calls change.
    changed: watch::Sender<u64>,
    /// One status write at a time, so that a later one is never overtaken by an earlier one.
    writing: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(crate) fn new(config: KubeletConfig) -> anyhow::Result<Self> {
        Ok(Self {
            client: ApiClient::new(&config.api_url, &format!("kubelet/{}", config.node))?,
            books: Mutex::default(),
            calls: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(config.seed)),
            changed: watch::Sender::new(0),
            writing: tokio::sync::Mutex::default(),
            config,
        })
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note(&self, call: Call) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        self.touch();
    }

    pub(crate) fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Puts a list into random order, if orders are to be random.
    pub(crate) fn shuffle<T>(&self, list: &mut [T]) {
        if self.config.shuffle {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            list.shuffle(&mut *rng);
        }
    }

    /// Whether an event that may come at any time happens now.
    pub(crate) fn toss(&self) -> bool {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        rng.random_bool(0.5)
    }

    /// Writes a pod's status, with retries until it is written, the pod is gone, or `wanted` returns false.
    pub(crate) async fn write_status(&self, pod: &Value, status: &Value, wanted: impl Fn() -> bool) {
        let path = format!("{}/status", pod_path(pod));
        let patch = json!({ "metadata": { "uid": object::uid(pod) }, "status": status });
        let _turn = self.writing.lock().await;
        while wanted() {
            match self.client.patch(&path, &patch).await {
                Ok(_) => return,
                Err(error) if matches!(error.code(), Some(404 | 409 | 422)) => return,
                Err(error) => {
                    tracing::debug!(%error, path, "status not written");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Pause before a failed write is tried again.
pub(crate) const RETRY: std::time::Duration = std::time::Duration::from_millis(50);

pub(crate) fn pod_path(pod: &Value) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", object::namespace(pod), object::name(pod))
}

/// `namespace/name`, for the record of calls.
pub(crate) fn pod_ref(pod: &Value) -> String {
    format!("{}/{}", object::namespace(pod), object::name(pod))
}
