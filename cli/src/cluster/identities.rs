//! Pods by uid.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A pod without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pod without a name")]
pub struct Nameless;

/// A snapshot may be written by hand, cleaned, or combined from several, and each of its pods counts.
#[derive(Debug, Default)]
pub struct Identities(BTreeMap<String, String>);

impl Identities {
    /// A pod without a uid, or with that of another pod, gets `namespace/name` as its uid.
    pub fn complete(&mut self, metadata: &mut ObjectMeta) -> Result<(), Nameless> {
        let name = metadata.name.as_deref().filter(|name| !name.is_empty()).ok_or(Nameless)?;
        let own = format!("{}/{name}", metadata.namespace.as_deref().unwrap_or_default());
        let uid = metadata.uid.take().filter(|uid| !uid.is_empty()).unwrap_or_else(|| own.clone());
        let owner = self.0.entry(uid.clone()).or_insert_with(|| own.clone());
        metadata.uid = Some(if *owner == own { uid } else { own });
        Ok(())
    }
}
