//! Who asks, and for what.

use std::sync::Arc;

use super::GpuRequest;
use crate::ids::{PodRef, PodUid};

/// A pod with what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRequest {
    /// Empty where it has none, which the API server never sends.
    pub uid: PodUid,
    /// For logs, and to call the API server by.
    pub name: PodRef,
    /// Shared by all who remember the pod.
    pub request: Arc<GpuRequest>,
}

impl PodRequest {
    /// Of its parts.
    pub fn new(uid: &PodUid, name: &PodRef, request: &Arc<GpuRequest>) -> Self {
        Self { uid: uid.clone(), name: name.clone(), request: request.clone() }
    }
}
