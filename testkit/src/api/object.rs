//! One version of one object, with its JSON text made once.

use std::sync::Arc;

use axum::body::Bytes;
use serde_json::Value;

use super::resource::Resource;

/// Namespace (empty for cluster-scoped kinds) and name.
pub(crate) type Key = (String, String);

/// An object as it was at one resourceVersion.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) value: Arc<Value>,
    pub(crate) rv: u64,
    text: Bytes,
    /// Length of the type prefix in `text`: items of a list carry no `apiVersion` and `kind`.
    prefix: usize,
}

impl Object {
    pub(crate) fn new(resource: Resource, mut value: Value, rv: u64) -> Self {
        if let Some(map) = value.as_object_mut() {
            map.insert("kind".into(), resource.kind().into());
            map.entry("apiVersion").or_insert_with(|| resource.api_version().into());
        }
        set(&mut value, &["metadata", "resourceVersion"], rv.to_string().into());
        let version = text(&value, &["apiVersion"]);
        let mut out = format!("{{\"apiVersion\":\"{version}\",\"kind\":\"{}\",", resource.kind());
        let prefix = out.len();
        let mut first = true;
        for (key, part) in value.as_object().into_iter().flatten() {
            if key == "apiVersion" || key == "kind" {
                continue;
            }
            if !first {
                out.push(',');
            }
            first = false;
            out.push_str(&Value::from(key.as_str()).to_string());
            out.push(':');
            out.push_str(&part.to_string());
        }
        out.push('}');
        Self { value: Arc::new(value), rv, text: out.into(), prefix }
    }

    /// The whole object as JSON.
    pub(crate) fn text(&self) -> Bytes {
        self.text.clone()
    }

    /// The object without its type, missing the opening brace.
    pub(crate) fn item(&self) -> &[u8] {
        self.text.get(self.prefix..).unwrap_or_default()
    }
}

/// The value at a path, if the whole path exists.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, part| value.get(part))
}

/// The string at a path; empty if it is missing, as Go has it.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// Puts a value at a path and makes the maps above it.
pub(crate) fn set(value: &mut Value, path: &[&str], new: Value) {
    let Some((last, above)) = path.split_last() else {
        return;
    };
    let mut place = value;
    for part in above {
        if !place.get(part).is_some_and(Value::is_object)
            && let Some(map) = place.as_object_mut()
        {
            map.insert((*part).to_owned(), Value::Object(serde_json::Map::new()));
        }
        match place.get_mut(part) {
            Some(next) => place = next,
            None => return,
        }
    }
    if let Some(map) = place.as_object_mut() {
        map.insert((*last).to_owned(), new);
    }
}

pub(crate) fn unset(value: &mut Value, path: &[&str]) {
    let Some((last, above)) = path.split_last() else {
        return;
    };
    let place = above.iter().try_fold(value, |value, part| value.get_mut(part));
    if let Some(map) = place.and_then(Value::as_object_mut) {
        map.remove(*last);
    }
}

pub(crate) fn name(value: &Value) -> &str {
    text(value, &["metadata", "name"])
}

pub(crate) fn namespace(value: &Value) -> &str {
    text(value, &["metadata", "namespace"])
}

pub(crate) fn uid(value: &Value) -> &str {
    text(value, &["metadata", "uid"])
}

pub(crate) fn node_name(pod: &Value) -> &str {
    text(pod, &["spec", "nodeName"])
}

pub(crate) fn phase(pod: &Value) -> &str {
    text(pod, &["status", "phase"])
}

/// Whether all containers of a pod have ended for good.
pub(crate) fn is_terminated(pod: &Value) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_deleting(value: &Value) -> bool {
    at(value, &["metadata", "deletionTimestamp"]).is_some_and(|stamp| !stamp.is_null())
}

pub(crate) fn key(value: &Value) -> Key {
    (namespace(value).to_owned(), name(value).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_text_of_an_object_is_the_object_and_list_items_have_no_type() {
        let object =
            Object::new(Resource::Pods, json!({"metadata": {"name": "a"}, "spec": {"x": [1, "\"q\""]}}), 7);
        let whole: Value = serde_json::from_slice(&object.text()).expect("json");
        assert_eq!(&whole, &*object.value);
        assert_eq!(text(&whole, &["metadata", "resourceVersion"]), "7");
        let item: Value = serde_json::from_slice(&[b"{", object.item()].concat()).expect("json");
        assert_eq!(item.get("kind"), None);
        assert_eq!(item.get("spec"), whole.get("spec"));
    }

    #[test]
    fn set_makes_the_maps_it_needs() {
        let mut value = json!({"a": null});
        set(&mut value, &["a", "b", "c"], json!(1));
        assert_eq!(value, json!({"a": {"b": {"c": 1}}}));
        unset(&mut value, &["a", "b", "c"]);
        assert_eq!(value, json!({"a": {"b": {}}}));
    }
}
