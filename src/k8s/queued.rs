//! What kube-scheduler's queue looks at, for a pod that is not bound.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::ids::NodeName;

/// Labels with a pod's group: of the coscheduling plugin, current and former.
const GROUP_LABELS: [&str; 2] = ["scheduling.x-k8s.io/pod-group", "pod-group.scheduling.sigs.k8s.io"];

/// The scheduling state of a pod that is not bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// `status.nominatedNodeName`: others are evicted for it there, or it waits there in Permit or PreBind. Writing it
    /// needs the right to write a pod's status.
    pub nominated: Option<NodeName>,
    /// `metadata.creationTimestamp`, in seconds since 1970.
    pub created: i64,
    /// The group that it is scheduled with, as `namespace/name`.
    pub group: Option<Arc<str>>,
    /// Whether it will wait between filter and bind: for its group (Permit), or for volumes and claims (PreBind).
    pub waits: bool,
}

impl Queued {
    /// `group` is `spec.schedulingGroup.podGroupName`.
    pub fn of(pod: &Pod, group: Option<&str>) -> Self {
        let metadata = &pod.metadata;
        let label = || {
            let labels = metadata.labels.as_ref()?;
            GROUP_LABELS.iter().find_map(|key| labels.get(*key)).map(String::as_str)
        };
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let group = group.or_else(label).filter(|group| !group.is_empty());
        let group: Option<Arc<str>> = group.map(|group| format!("{namespace}/{group}").into());
        let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        let spec = pod.spec.as_ref();
        let claims = |volume: &Volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
        let waits = spec.is_some_and(|spec| {
            spec.volumes.iter().flatten().any(claims) || spec.resource_claims.iter().flatten().next().is_some()
        });
        Self {
            nominated: nominated.filter(|node| !node.is_empty()).map(NodeName::from),
            created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            waits: waits || group.is_some(),
            group,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(pod: Value) -> Queued {
        Queued::of(&serde_json::from_value(pod).unwrap(), None)
    }

    #[test]
    fn groups_and_claims_make_a_pod_wait() {
        let labelled = |key: &str| json!({ "metadata": { "namespace": "ns", "labels": { key: "g" } } });
        for key in GROUP_LABELS {
            let queued = of(labelled(key));
            assert_eq!((queued.group.as_deref(), queued.waits), (Some("ns/g"), true));
        }
        assert_eq!(of(labelled("app")), Queued::default());
        let volumes = |volume: Value| of(json!({ "spec": { "containers": [], "volumes": [volume] } })).waits;
        assert!(volumes(json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } })));
        assert!(volumes(json!({ "name": "v", "ephemeral": {} })));
        assert!(!volumes(json!({ "name": "v", "emptyDir": {} })));
        let by_spec = Queued::of(&Pod::default(), Some("g"));
        assert_eq!((by_spec.group.as_deref(), by_spec.waits), (Some("/g"), true));
    }

    #[test]
    fn an_empty_nomination_is_none() {
        assert_eq!(of(json!({ "status": { "nominatedNodeName": "" } })).nominated, None);
        assert_eq!(of(json!({ "status": { "nominatedNodeName": "n" } })).nominated, Some("n".into()));
        let created = of(json!({ "metadata": { "creationTimestamp": "1970-01-01T00:01:00Z" } })).created;
        assert_eq!(created, 60);
    }
}
