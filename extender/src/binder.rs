//! Writes to the API server, and their outcomes.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kerf::annotation::Domain;
use kerf::ids::{NodeName, PodRef, PodUid};
use kerf_runtime::guarded::Guarded;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::timeout;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// The API server has accepted the write.
    Written,
    /// The API server has refused the write: nothing was written.
    Refused(String),
    /// No answer, or an ambiguous one: it may or may not have been written.
    Unknown(String),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("no answer in time")]
    Late,
    #[error("{0}")]
    Unreadable(String),
}

/// Writes bindings and reads pods, each within a deadline. The client must not retry: a write is one request.
#[derive(Clone)]
pub(crate) struct Binder {
    pub client: Client,
    /// The longest time of one read.
    pub read: Duration,
    /// The longest time of one write.
    pub write: Duration,
    /// kerf's own.
    pub namespace: String,
}

/// The name of the object that `Binder::wake` changes.
pub const WAKER: &str = "kerf-extender";

impl Binder {
    fn pods(&self, pod: &PodRef) -> Api<Guarded<Pod>> {
        Api::namespaced(self.client.clone(), &pod.namespace)
    }

    /// Binds the pod to the node and writes the annotations, in one request. The API server does both in one
    /// transaction, and neither if the pod has another uid, is bound already or is being deleted
    /// (`pkg/registry/core/pod/storage`, `assignPod`).
    pub async fn bind(
        &self,
        pod: &PodRef,
        uid: &PodUid,
        node: &NodeName,
        annotations: BTreeMap<String, String>,
    ) -> WriteOutcome {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.name.to_string()),
                namespace: Some(pod.namespace.to_string()),
                uid: Some(uid.to_string()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(node.to_string()),
                ..ObjectReference::default()
            },
        };
        let api = self.pods(pod);
        let post = PostParams::default();
        let write = api.create_subresource::<_, serde_json::Value>("binding", &pod.name, &post, &binding);
        classify(timeout(self.write, write).await)
    }

    /// Writes annotations on a pod that is not bound, for schedulers that bind pods themselves: through `pods/status`,
    /// which needs no other right to change pods. The uid in the patch is a precondition.
    pub async fn annotate(
        &self,
        pod: &PodRef,
        uid: &PodUid,
        annotations: &BTreeMap<String, String>,
    ) -> WriteOutcome {
        let patch = json!({ "metadata": { "uid": uid.as_str(), "annotations": annotations } });
        let api = self.pods(pod);
        let patch = Patch::Merge(&patch);
        let params = PatchParams::default();
        let write = api.patch_status(&pod.name, &params, &patch);
        classify(timeout(self.write, write).await)
    }

    /// Makes kube-scheduler try all pods again that wait because an extender refused them.
    ///
    /// It tries them at any change of an object of the kinds that its plugins register for (`UnrollWildCardResource`,
    /// `pkg/scheduler/framework/types.go`, Kubernetes 1.36). Of these only CSIStorageCapacity is namespaced and has no
    /// effect: without nodes and with a storage class that does not exist, it declares no storage. So the right to
    /// change this one object in kerf's own namespace is enough, where other kinds would need a right to change every
    /// pod's status or every node.
    pub async fn wake(&self, domain: &Domain, nanos: u64) -> WriteOutcome {
        let api: Api<CSIStorageCapacity> = Api::namespaced(self.client.clone(), &self.namespace);
        let patch = json!({ "metadata": { "annotations": { format!("{domain}/retried"): nanos.to_string() } } });
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let write = api.patch_metadata(WAKER, &params, &patch);
        classify(timeout(self.read, write).await)
    }

    /// The pod as the API server has it now; `None` where it does not exist.
    pub async fn read(&self, pod: &PodRef) -> Result<Option<Pod>, ReadError> {
        let answer = timeout(self.read, self.pods(pod).get_opt(&pod.name)).await.map_err(|_| ReadError::Late)?;
        let found = answer?.map(|pod| pod.0.map_err(|unreadable| ReadError::Unreadable(unreadable.error)));
        found.transpose()
    }
}

fn classify<T>(answer: Result<kube::Result<T>, tokio::time::error::Elapsed>) -> WriteOutcome {
    match answer {
        Ok(Ok(_)) => WriteOutcome::Written,
        // 408 is a time-out of the server: the outcome of the write is unknown
        Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 408 => {
            WriteOutcome::Refused(status.message.clone())
        }
        Ok(Err(error)) => WriteOutcome::Unknown(error.to_string()),
        Err(_) => WriteOutcome::Unknown("no answer in time".into()),
    }
}
