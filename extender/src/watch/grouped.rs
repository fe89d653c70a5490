//! A Pod with the name of its scheduling group.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A Pod, and `spec.schedulingGroup.podGroupName` (Kubernetes 1.36), which the Pod's type does not have yet.
#[derive(Clone, Debug)]
pub(super) struct GroupedPod {
    pub pod: Pod,
    pub group: Option<String>,
}

impl<'de> Deserialize<'de> for GroupedPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let pod = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        // hardly any pod has one, and parsing each twice would double the cost
        let raw = text.get().contains("\"schedulingGroup\"").then(|| serde_json::from_str(text.get())).transpose();
        let raw: Value = raw.map_err(D::Error::custom)?.unwrap_or_default();
        let group = raw.pointer("/spec/schedulingGroup/podGroupName").and_then(Value::as_str);
        Ok(Self { pod, group: group.map(str::to_owned) })
    }
}

impl Resource for GroupedPod {
    type DynamicType = ();
    type Scope = <Pod as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.pod.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.pod.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_read_beside_the_pod() {
        let read = |spec: &str| serde_json::from_str::<GroupedPod>(&format!(r#"{{"spec":{spec}}}"#)).unwrap();
        let pod = read(r#"{"containers":[],"schedulingGroup":{"podGroupName":"g"},"nodeName":"n"}"#);
        assert_eq!(pod.group.as_deref(), Some("g"));
        assert_eq!(pod.pod.spec.unwrap().node_name.as_deref(), Some("n"));
        assert_eq!(read(r#"{"containers":[]}"#).group, None);
        // the word alone is not the field
        assert_eq!(read(r#"{"containers":[{"name":"c","args":["\"schedulingGroup\""]}]}"#).group, None);
    }
}
