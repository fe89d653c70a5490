//! Every call to the API server. Each has a deadline, and none is made by a thread that serves kubelet, except the
//! one list that decides whether an Allocate can be answered.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kerf::annotation::Keys;
use kerf::ids::NodeName;
use kerf_runtime::failure::Failure;
use kerf_runtime::guarded::Guarded;
use kube::api::{GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Client, Resource as _};
use prometheus::IntCounterVec;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::allocation::{self, Seen};
use crate::api::event::{About, EventText};
use crate::api::node::{Changes, Metadata, NodeView, Starting, Status, WatchedNode};
use crate::api::pod::seen;
use crate::base::gate::Gate;

/// No call takes longer.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The API server, as this node's plugin uses it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    node: NodeName,
    keys: Keys,
    lists: Gate,
    failures: IntCounterVec,
}

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No answer in time; whether a write was done is unknown.
    #[error("no answer within {DEADLINE:?}")]
    Deadline(#[from] tokio::time::error::Elapsed),
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Api(#[from] Box<kube::Error>),
    /// Not asked, since the last call failed a moment ago.
    #[error("{0}; not asked again so soon")]
    TooSoon(Failure),
}

impl ClusterError {
    /// Described in the same words for as long as it is the same failure.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Deadline(_) => Failure::Silent(DEADLINE),
            Self::Api(error) => Failure::from(&**error),
            Self::TooSoon(failure) => failure.clone(),
        }
    }

    /// Whether the object no longer exists, or is another one of the same name.
    pub fn gone(&self) -> bool {
        self.refusal().is_some_and(|(code, _)| [404, 409].contains(&code))
    }

    /// Whether the object was changed since it was read.
    pub fn conflict(&self) -> bool {
        self.refusal() == Some((409, "Conflict"))
    }

    /// Whether trying again cannot succeed before rights or policies change.
    pub fn refused(&self) -> bool {
        self.refusal().is_some_and(|(code, _)| [401, 403, 422].contains(&code))
    }

    /// The code and the reason in the API server's answer.
    fn refusal(&self) -> Option<(u16, &str)> {
        let Self::Api(error) = self else { return None };
        let kube::Error::Api(status) = &**error else { return None };
        Some((status.code, status.reason.as_str()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `True` or `False`; any other status is `Unknown`.
    pub status: &'static str,
    pub reason: String,
    pub message: String,
    /// When the status became this one.
    pub since: Timestamp,
}

impl Cluster {
    /// `failures`: calls that failed, by `call`.
    pub fn new(client: Client, node: NodeName, keys: Keys, failures: IntCounterVec) -> Self {
        Self { client, node, keys, lists: Gate::default(), failures }
    }

    /// Counts a call that failed.
    pub fn failed(&self, call: &str) {
        self.failures.with_label_values(&[call]).inc();
    }

    /// All pods, for a watch with [`Cluster::selector`].
    pub fn pods(&self) -> Api<Guarded<Pod>> {
        Api::all(self.client.clone())
    }

    /// All Nodes, for a watch with [`Cluster::own_node`].
    pub fn nodes(&self) -> Api<Guarded<WatchedNode>> {
        Api::all(self.client.clone())
    }

    /// Selects this node's Node.
    pub fn own_node(&self) -> String {
        format!("metadata.name={}", self.node)
    }

    /// Closed while [`Cluster::list`] does not ask after a failure.
    pub fn lists(&self) -> &Gate {
        &self.lists
    }

    /// Selects the pods of this node.
    pub fn selector(&self) -> String {
        format!("spec.nodeName={}", self.node)
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The pods of this node, as they are now. After a failure the API server is not asked again at once.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn list(&self) -> Result<Vec<Seen>, ClusterError> {
        let selector = ListParams::default().fields(&self.selector());
        let pods = self.pods();
        self.lists.pass().await.map_err(ClusterError::TooSoon)?;
        let list = answer(pods.list(&selector)).await.inspect_err(|error| self.lists.failed(error.failure()))?;
        self.lists.answered();
        Ok(list.into_iter().filter_map(|object| seen(object, &self.keys)).collect())
    }

    /// Writes annotations on one pod, through `pods/status`, which needs no right to change pods otherwise. The API
    /// server refuses the write where the pod's uid differs.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn annotate_pod(&self, correction: &allocation::Correction) -> Result<(), ClusterError> {
        let pods = Request::new(Pod::url_path(&(), Some(&correction.reference.namespace)));
        let patch = serde_json::json!({
            "metadata": { "uid": correction.uid.as_str(), "annotations": correction.annotations },
        });
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let IgnoredAny =
            self.ask(pods.patch_subresource("status", &correction.reference.name, &params, &patch)).await?;
        Ok(())
    }

    /// Writes an event. One about the Node that exists under its name counts as written.
    ///
    /// # Errors
    /// [`ClusterError`]; an event without an answer may have been written.
    pub async fn event(&self, about: &About, text: &EventText) -> Result<(), ClusterError> {
        let (metadata, object) = match about {
            About::Node(end) => {
                let node = self.node.to_string();
                let name = Some(format!("{node}.{end}"));
                // not the object's uid: kubelet writes the Node's name here, and kubectl looks for it
                let (kind, uid) = (Some("Node".to_owned()), Some(node.clone()));
                let object = ObjectReference { kind, name: Some(node), uid, ..ObjectReference::default() };
                (ObjectMeta { name, ..ObjectMeta::default() }, object)
            }
            About::Pod(pod, uid) => {
                let object = ObjectReference {
                    kind: Some("Pod".to_owned()),
                    namespace: Some(pod.namespace.to_string()),
                    name: Some(pod.name.to_string()),
                    uid: Some(uid.to_string()),
                    ..ObjectReference::default()
                };
                let generate_name = Some(format!("{}.", pod.name));
                (ObjectMeta { generate_name, ..ObjectMeta::default() }, object)
            }
        };
        // a Node has no namespace; the API server takes its events in this one
        let namespace = object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let now = Some(Time(Timestamp::now()));
        let event = Event {
            metadata: ObjectMeta { namespace: Some(namespace), ..metadata },
            involved_object: ObjectReference { api_version: Some("v1".to_owned()), ..object },
            type_: Some(if text.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(text.reason.to_owned()),
            message: Some(text.message.clone()),
            count: Some(1),
            first_timestamp: now.clone(),
            last_timestamp: now,
            source: Some(EventSource {
                component: Some("kerf-plugin".to_owned()),
                host: Some(self.node.to_string()),
            }),
            ..Event::default()
        };
        match answer(events.create(&PostParams::default(), &event)).await {
            Err(error) if matches!(about, About::Node(_)) && error.refusal() == Some((409, "AlreadyExists")) => {
                Ok(())
            }
            written => written.map(drop),
        }
    }

    /// Writes one annotation on the Node, through `nodes/status`.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn annotate_node(&self, key: &str, value: &str) -> Result<(), ClusterError> {
        let patch = serde_json::json!({ "metadata": { "annotations": { key: value } } });
        self.patch_node_status(Patch::Merge(patch)).await
    }

    /// Changes labels and annotations of the Node that was read as `shown`, through `nodes/status`, which needs no
    /// right to change Nodes otherwise.
    ///
    /// # Errors
    /// [`ClusterError`]; [`ClusterError::conflict`] where the Node was changed since, and nothing was written.
    pub async fn patch_node(
        &self,
        shown: &Metadata,
        labels: &Changes,
        annotations: &Changes,
    ) -> Result<(), ClusterError> {
        let body = serde_json::json!({ "metadata": {
            "uid": shown.uid,
            "resourceVersion": shown.resource_version,
            "labels": labels,
            "annotations": annotations,
        } });
        self.patch_node_status(Patch::Merge(body)).await
    }

    /// The Node, where it has the startup taint.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn starting(&self) -> Result<Option<Starting>, ClusterError> {
        let read = all_nodes().get(self.node.as_str(), &GetParams::default());
        match self.ask::<NodeView>(read).await {
            Err(error) if error.gone() => Ok(None),
            node => Ok(node?.starting(&self.keys)),
        }
    }

    /// Takes the startup taint off the Node that was read as `starting`. The one write that needs the right to change
    /// Nodes (`nodes`): taints are no part of a status.
    ///
    /// # Errors
    /// [`ClusterError`]; [`ClusterError::conflict`] where the Node was changed since, and nothing was written.
    pub async fn remove_startup_taint(&self, starting: &Starting) -> Result<(), ClusterError> {
        let Starting { uid, resource_version, taints, .. } = starting;
        let body = serde_json::json!({
            "metadata": { "uid": uid, "resourceVersion": resource_version },
            "spec": { "taints": taints },
        });
        let patch = all_nodes().patch(self.node.as_str(), &PatchParams::default(), &Patch::Merge(body));
        let IgnoredAny = self.ask(patch).await?;
        Ok(())
    }

    /// The version of the node's kubelet; empty where the Node has none.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn kubelet_version(&self) -> Result<String, ClusterError> {
        let info = self.node_status().await?.node_info;
        Ok(info.map(|info| info.kubelet_version).unwrap_or_default())
    }

    /// A condition that the Node shows.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn condition(&self, kind: &str) -> Result<Option<Condition>, ClusterError> {
        let conditions = self.node_status().await?.conditions.unwrap_or_default();
        Ok(conditions.into_iter().find(|condition| condition.type_ == kind).map(|condition| Condition {
            status: match condition.status.as_str() {
                "True" => "True",
                "False" => "False",
                _ => "Unknown",
            },
            reason: condition.reason.unwrap_or_default(),
            message: condition.message.unwrap_or_default(),
            since: condition.last_transition_time.and_then(|time| time.parse().ok()).unwrap_or_else(Timestamp::now),
        }))
    }

    /// Writes a condition of the Node, which held at `now`.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn set_condition(
        &self,
        kind: &str,
        condition: &Condition,
        now: Timestamp,
    ) -> Result<(), ClusterError> {
        let Condition { status, reason, message, since } = condition;
        let patch = serde_json::json!({ "status": { "conditions": [{
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": Time(*since),
            "lastHeartbeatTime": Time(now),
        }] } });
        // merges by the type: kubelet's conditions stay as they are
        self.patch_node_status(Patch::Strategic(patch)).await
    }

    async fn patch_node_status(&self, patch: Patch<serde_json::Value>) -> Result<(), ClusterError> {
        let params = PatchParams::default();
        let IgnoredAny =
            self.ask(all_nodes().patch_subresource("status", self.node.as_str(), &params, &patch)).await?;
        Ok(())
    }

    async fn node_status(&self) -> Result<Status, ClusterError> {
        let node: NodeView = self.ask(all_nodes().get(self.node.as_str(), &GetParams::default())).await?;
        Ok(node.status.unwrap_or_default())
    }

    /// Sends a request. Parts of the answer that are not used cannot make it a failure: the answer to a write is an
    /// object that other clients have written to as well.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, ClusterError> {
        let request = request.map_err(|error| Box::new(kube::Error::BuildRequest(error)))?;
        answer(self.client.request(request)).await
    }

    /// The Node's metadata.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn node_metadata(&self) -> Result<Metadata, ClusterError> {
        let read = all_nodes().get_metadata(self.node.as_str(), &GetParams::default());
        Ok(self.ask::<NodeView>(read).await?.metadata)
    }
}

/// Waits for the API server's answer, but not for ever.
async fn answer<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    Ok(tokio::time::timeout(DEADLINE, call).await?.map_err(Box::new)?)
}

fn all_nodes() -> Request {
    Request::new(Node::url_path(&(), None))
}
