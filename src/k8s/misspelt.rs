//! Names below kerf's domain that are none of its names but close to one. Other names there may be somebody else's and
//! are left alone. The policy `manifests/base/requests.yaml` decides the same way at the API server.

use k8s_openapi::api::core::v1::Pod;

use super::host;
use crate::annotation::Keys;
use crate::request::RequestError;

/// Names of the resources, without the domain.
pub(super) const RESOURCES: [&str; 2] = ["vcuda-core", "vcuda-memory"];
/// Names of the annotations that users write, without the domain.
const ANNOTATIONS: [&str; 4] = ["vcuda-core-limit", "gpu-policy", "isolation", "gpu-shares"];

/// The first misspelt resource, in kubelet's order of containers.
pub(super) fn resource(pod: &Pod, keys: &Keys) -> Result<(), RequestError> {
    let spec = pod.spec.as_ref();
    for (_, container) in spec.into_iter().flat_map(host::kinds) {
        let limits = container.resources.iter().flat_map(|resources| resources.limits.iter().flatten());
        for name in limits.filter_map(|(name, _)| below(name, keys)) {
            if let Some(meant) = resource_meant(name) {
                let container = container.name.as_str().into();
                return Err(RequestError::MisspeltResource { container, name: name.into(), meant });
            }
        }
    }
    Ok(())
}

/// The first misspelt annotation.
pub(super) fn annotation(pod: &Pod, keys: &Keys) -> Result<(), RequestError> {
    let annotations = pod.metadata.annotations.iter().flatten();
    for name in annotations.filter_map(|(key, _)| below(key, keys)) {
        if let Some(meant) = close_to(name, &ANNOTATIONS) {
            return Err(RequestError::MisspeltAnnotation { name: name.into(), meant });
        }
    }
    Ok(())
}

/// What follows the domain.
pub(super) fn below<'a>(key: &'a str, keys: &Keys) -> Option<&'a str> {
    let (domain, name) = key.split_once('/')?;
    (domain == keys.domain.as_str()).then_some(name)
}

/// The resource that a name means, which is not its name.
fn resource_meant(name: &str) -> Option<&'static str> {
    if RESOURCES.contains(&name) {
        return None;
    }
    let letters = name.to_ascii_lowercase().replace(['-', '_', '.'], "");
    match letters.strip_prefix("vcuda") {
        Some(rest) if rest.starts_with('m') => Some("vcuda-memory"),
        Some(_) => Some("vcuda-core"),
        None => close_to(name, &RESOURCES),
    }
}

/// The first of the words that a name is not, but becomes with one letter taken from either or both.
fn close_to(name: &str, words: &[&'static str]) -> Option<&'static str> {
    let is_close = |word: &&&str| {
        let shorter: Vec<String> = without_one(name).collect();
        shorter.iter().any(|shorter| shorter == **word)
            || without_one(word).any(|part| part == name || shorter.contains(&part))
    };
    if words.contains(&name) { None } else { words.iter().find(is_close).copied() }
}

fn without_one(word: &str) -> impl Iterator<Item = String> {
    word.char_indices()
        .map(|(at, _)| word.char_indices().filter(|(other, _)| *other != at).map(|(_, c)| c).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_letter_too_many_too_few_wrong_or_misplaced_is_close() {
        for name in ["vcuda-cores", "vcuda-cor", "vcuda_core", "vcdua-core", "cuda-core", "VCUDA-core", "vcuda"] {
            assert_eq!(resource_meant(name), Some("vcuda-core"), "{name}");
        }
        for name in ["vcuda-mem", "vcuda-memry", "vcudamemory", "vcude-memory"] {
            assert_eq!(resource_meant(name), Some("vcuda-memory"), "{name}");
        }
        for name in ["vcuda-core", "vcuda-memory", "npu-core", "gpu", "rdma", ""] {
            assert_eq!(resource_meant(name), None, "{name}");
        }
        assert_eq!(close_to("gpu-share", &ANNOTATIONS), Some("gpu-shares"));
        for name in ["gpu-shares", "gpu-isolation", "gpu-placement", "owner"] {
            assert_eq!(close_to(name, &ANNOTATIONS), None, "{name}");
        }
    }
}
