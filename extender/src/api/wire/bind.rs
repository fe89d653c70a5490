//! The body of bind, and its answer.

use serde::{Deserialize, Serialize};

use super::pod::Form;
use super::unreadable::Unreadable;

/// `ExtenderBindingArgs`: the body of bind.
#[derive(Debug, Deserialize)]
pub struct BindArgs {
    /// `metadata.name` of the pod.
    #[serde(rename = "PodName", alias = "podName", alias = "podname")]
    pub pod_name: String,
    /// `metadata.namespace` of the pod.
    #[serde(rename = "PodNamespace", alias = "podNamespace", alias = "podnamespace")]
    pub pod_namespace: String,
    /// `metadata.uid` of the pod.
    #[serde(rename = "PodUID", alias = "podUID", alias = "podUid", alias = "poduid")]
    pub pod_uid: String,
    #[serde(rename = "Node", alias = "node")]
    pub node: String,
}

impl BindArgs {
    pub fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        let args: Self = serde_json::from_slice(body).map_err(|error| Unreadable::json(&error))?;
        Form::Subdomain.check("PodName", &args.pod_name)?;
        Form::Label.check("PodNamespace", &args.pod_namespace)?;
        Form::Uid.check("PodUID", &args.pod_uid)?;
        Form::Subdomain.check("Node", &args.node)?;
        Ok(args)
    }
}

/// `ExtenderBindingResult`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BindResult {
    /// Empty where the pod is bound.
    pub error: String,
}
