//! An object that may turn out to be unreadable without taking the whole list or watch with it.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::PartialObjectMeta;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Does what [`kube::core::DeserializeGuard`] does, at a third of its cost: that one builds a tree of every object and
/// copies it, this one keeps the text until the object is read. The text can only be had from `serde_json` itself, not
/// from something buffered: in a watch event `type` has to come before `object`, as the API server sends it.
#[derive(Clone, Debug)]
pub struct Guarded<K>(
    /// The object, or what is left of it.
    pub Result<K, Unreadable>,
);

/// What is left of an object that cannot be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Why.
    pub error: String,
    metadata: Box<ObjectMeta>,
}

impl<K: Resource<DynamicType = ()>> Guarded<K> {
    /// The object; where it cannot be read, that is logged.
    pub fn readable(self) -> Option<K> {
        let name = self.meta().name.clone();
        match self.0 {
            Ok(object) => Some(object),
            Err(unreadable) => {
                let (kind, error) = (K::kind(&()), unreadable.error);
                tracing::warn!(%kind, name, error, "object cannot be read; skipped");
                None
            }
        }
    }
}

impl<'de, K: DeserializeOwned + Resource> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let object = serde_json::from_str(text.get()).map(Ok);
        let guarded = object.or_else(|error| {
            let PartialObjectMeta::<K> { metadata, .. } = serde_json::from_str(text.get())?;
            Ok(Err(Unreadable { error: error.to_string(), metadata: Box::new(metadata) }))
        });
        guarded.map(Self).map_err(|error: serde_json::Error| D::Error::custom(error))
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &*unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut *unreadable.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    const GOOD: &str = r#"{"metadata":{"name":"good","uid":"1"},"spec":{"containers":[]}}"#;
    const BAD: &str = r#"{"metadata":{"name":"bad","uid":"2"},"spec":{"containers":"none"}}"#;

    #[test]
    fn a_bad_object_leaves_the_others_of_a_list_readable() {
        let text = format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":[{GOOD},{BAD}]}}"#);
        let list: ObjectList<Guarded<Pod>> = serde_json::from_str(&text).unwrap();
        let [good, bad] = &list.items[..] else { panic!("{} items", list.items.len()) };
        assert_eq!(good.0.as_ref().unwrap().metadata.name.as_deref(), Some("good"));
        assert_eq!(bad.meta().uid.as_deref(), Some("2"));
        assert!(bad.0.as_ref().unwrap_err().error.contains("expected"), "{bad:?}");
    }

    #[test]
    fn an_event_of_a_watch_is_read() {
        let text = format!(r#"{{"type":"MODIFIED","object":{BAD}}}"#);
        let WatchEvent::Modified(pod) = serde_json::from_str::<WatchEvent<Guarded<Pod>>>(&text).unwrap() else {
            panic!("another event");
        };
        assert_eq!(pod.meta().name.as_deref(), Some("bad"));
        assert!(pod.0.is_err());
    }

    #[test]
    fn what_has_no_metadata_is_an_error() {
        assert!(serde_json::from_str::<Guarded<Pod>>(r#"{"spec":{"containers":1},"metadata":7}"#).is_err());
    }
}
