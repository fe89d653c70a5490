//! The pod of a request, bounded by what an API server accepts.

use k8s_openapi::api::core::v1::Pod;
use serde_json::value::RawValue;

use super::names;
use super::unreadable::Unreadable;

/// An API server accepts no larger request, so no pod is larger.
const MAX_BYTES: usize = 3 << 20;
/// More JSON objects than any pod has; each may take kilobytes once it is read.
const MAX_OBJECTS: usize = 20_000;

/// Parses a pod, and checks its names.
pub(super) fn read(text: &RawValue) -> Result<Pod, Unreadable> {
    let text = text.get();
    let objects = text.bytes().filter(|byte| *byte == b'{').count();
    if text.len() > MAX_BYTES || objects > MAX_OBJECTS {
        return Err(Unreadable::LargePod);
    }
    let pod = serde_json::from_str(text).map_err(|error| Unreadable::json(&error))?;
    names::of_pod(&pod)?;
    Ok(pod)
}
