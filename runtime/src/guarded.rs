//! An object that may be unreadable without failing the whole list or watch.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Like [`kube::core::DeserializeGuard`], at a third of its cost: that one builds and copies a tree of every object,
/// this one keeps the text until the object is parsed. The text is available only directly from `serde_json`, not from
/// buffered content: in a watch event `type` has to come before `object`, as the API server sends it.
#[derive(Clone, Debug)]
pub struct Guarded<K>(
    /// The object, or what is left of it.
    pub Result<K, Unreadable>,
);

/// The readable part of an object that cannot be parsed.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The parser's message.
    pub error: String,
    /// `spec.nodeName`, where it has one.
    pub node: Option<String>,
    /// Only namespace, name, uid and resource version.
    metadata: Box<ObjectMeta>,
}

type Fields = BTreeMap<String, Box<RawValue>>;

/// The fields of an object as texts, without `metadata.managedFields`: a client that may write the object may write
/// times and depths there that the API server accepts and that cannot be parsed here. Nothing here needs them.
fn unmanaged(text: &str) -> serde_json::Result<(Fields, Fields)> {
    let mut object: Fields = serde_json::from_str(text)?;
    let mut metadata: Fields = match object.remove("metadata") {
        Some(metadata) => serde_json::from_str(metadata.get())?,
        None => Fields::new(),
    };
    metadata.remove("managedFields");
    Ok((object, metadata))
}

impl Unreadable {
    fn new(error: &serde_json::Error, object: &Fields, metadata: &Fields) -> Self {
        #[derive(Deserialize)]
        struct Spec {
            #[serde(rename = "nodeName")]
            node: Option<String>,
        }
        let text = |key: &str| serde_json::from_str(metadata.get(key)?.get()).ok();
        let spec: Option<Spec> = object.get("spec").and_then(|spec| serde_json::from_str(spec.get()).ok());
        let metadata = ObjectMeta {
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        let node = spec.and_then(|spec| spec.node).filter(|node| !node.is_empty());
        Self { error: error.to_string(), node, metadata: Box::new(metadata) }
    }
}

impl<K: Resource<DynamicType = ()>> Guarded<K> {
    /// The object; `None`, with a log line, where it cannot be parsed.
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
        // directly, as nearly all objects can be
        let guarded = serde_json::from_str(text.get()).map(Ok).or_else(|_| {
            let (mut object, metadata) = unmanaged(text.get())?;
            let kept = serde_json::value::to_raw_value(&metadata)?;
            object.insert("metadata".to_owned(), kept);
            let read = serde_json::to_string(&object).and_then(|text| serde_json::from_str(&text));
            Ok(read.map_err(|error| Unreadable::new(&error, &object, &metadata)))
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

    /// The API server accepts both from any client that may write the object.
    #[test]
    fn what_managed_fields_say_is_not_read() {
        let deep = format!("{}{}", r#"{"f:a":"#.repeat(200), "{}".to_owned() + &"}".repeat(200));
        for field in [r#""time":"9999-12-31T23:59:59Z""#.to_owned(), format!(r#""fieldsV1":{deep}"#)] {
            let text = format!(
                r#"{{"metadata":{{"name":"odd","uid":"3","labels":{{"a":"b"}},"managedFields":[{{"manager":"x",{field}}}]}},
                    "spec":{{"nodeName":"n","containers":[]}}}}"#
            );
            let event = format!(r#"{{"type":"ADDED","object":{text}}}"#);
            let WatchEvent::Added(pod) = serde_json::from_str::<WatchEvent<Guarded<Pod>>>(&event).unwrap() else {
                panic!("another event");
            };
            let pod = pod.0.unwrap();
            assert_eq!(pod.metadata.labels.unwrap()["a"], "b");
            assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("n"));
        }
    }

    #[test]
    fn of_what_cannot_be_read_the_name_and_the_node_are_left() {
        let text = r#"{"metadata":{"name":"odd","namespace":"ns","uid":"3","resourceVersion":"7",
            "creationTimestamp":"9999-12-31T23:59:59Z"},"spec":{"nodeName":"n","containers":[]}}"#;
        let pod = serde_json::from_str::<Guarded<Pod>>(text).unwrap();
        let meta = pod.meta();
        assert_eq!((meta.name.as_deref(), meta.resource_version.as_deref()), (Some("odd"), Some("7")));
        assert_eq!(pod.0.unwrap_err().node.as_deref(), Some("n"));
    }

    #[test]
    fn what_has_no_metadata_is_an_error() {
        assert!(serde_json::from_str::<Guarded<Pod>>(r#"{"spec":{"containers":1},"metadata":7}"#).is_err());
    }
}
