//! Bounds on how much a pod that asks for GPUs may say. The policy `manifests/base/requests.yaml` has the same.

use k8s_openapi::api::core::v1::Pod;

use super::host;
use super::misspelt::{RESOURCES, below};
use crate::annotation::Keys;
use crate::request::{MAX_ANNOTATIONS, MAX_LIMITS, MAX_LISTED, MAX_UNKNOWN, RequestError};

/// Of its containers and their limits.
pub(super) fn limits(pod: &Pod, keys: &Keys) -> Result<(), RequestError> {
    let (mut containers, mut limits, mut unknown, mut asks) = (0, 0, 0, false);
    for (_, container) in pod.spec.iter().flat_map(host::kinds) {
        containers += 1;
        let own = container.resources.iter().flat_map(|resources| resources.limits.iter().flatten());
        for (name, _) in own {
            let below = below(name, keys);
            limits += 1;
            unknown += usize::from(below.is_some_and(|name| !RESOURCES.contains(&name)));
            asks |= below.is_some() || keys.share_resources.contains(name);
        }
    }
    match () {
        () if !asks => Ok(()),
        () if containers > MAX_LISTED => Err(RequestError::TooManyListed),
        () if limits > MAX_LIMITS => Err(RequestError::TooManyLimits),
        () if unknown > MAX_UNKNOWN => Err(RequestError::TooManyUnknown),
        () => Ok(()),
    }
}

/// Of its annotations.
pub(super) fn annotations(pod: &Pod, keys: &Keys) -> Result<(), RequestError> {
    let own = pod.metadata.annotations.iter().flatten().filter(|(key, _)| below(key, keys).is_some());
    if own.count() > MAX_ANNOTATIONS { Err(RequestError::TooManyAnnotations) } else { Ok(()) }
}
