//! A pod with its request.

use std::sync::Arc;

use super::GpuRequest;
use crate::ids::{PodRef, PodUid};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRequest {
    /// Empty where the pod has no uid; the API server never sends such a pod.
    pub uid: PodUid,
    /// For logs and for API calls.
    pub name: PodRef,
    pub request: Arc<GpuRequest>,
}

impl PodRequest {
    pub fn new(uid: &PodUid, name: &PodRef, request: &Arc<GpuRequest>) -> Self {
        Self { uid: uid.clone(), name: name.clone(), request: request.clone() }
    }
}
