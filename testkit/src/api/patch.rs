//! Merge patches, and the few merge keys of a strategic merge patch that matter to pods and nodes.

use serde_json::{Map, Value};

use super::failure::Failure;
use super::object;

/// How the body of a PATCH is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// RFC 7386: maps merge, everything else is replaced, null removes.
    Merge,
    /// As above, but lists with a known merge key are merged by it.
    Strategic,
}

impl Flavour {
    pub(crate) fn of(content_type: &str) -> Result<Self, Failure> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            other => Err(Failure::unsupported(other)),
        }
    }
}

/// The field by which Kubernetes merges the elements of a list, for the lists we know.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "conditions" | "addresses" => Some("type"),
        "containers" | "initContainers" | "env" => Some("name"),
        _ => None,
    }
}

/// Applies a patch in place.
pub(crate) fn apply(flavour: Flavour, target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else {
        return;
    };
    if flavour == Flavour::Strategic {
        match object::text(patch, &["$patch"]) {
            "replace" => {
                let mut whole = changes.clone();
                whole.remove("$patch");
                *map = whole;
                return;
            }
            "delete" => {
                map.clear();
                return;
            }
            _ => {}
        }
    }
    for (name, change) in changes {
        if change.is_null() {
            map.remove(name);
            continue;
        }
        let key = merge_key(name).filter(|_| flavour == Flavour::Strategic);
        match (key, change, map.get_mut(name)) {
            (Some(key), Value::Array(elements), Some(Value::Array(present))) => {
                merge_list(key, present, elements);
            }
            (_, _, Some(present)) => apply(flavour, present, change),
            (_, _, None) => {
                let mut fresh = Value::Null;
                apply(flavour, &mut fresh, change);
                map.insert(name.clone(), fresh);
            }
        }
    }
}

fn merge_list(key: &str, present: &mut Vec<Value>, elements: &[Value]) {
    for element in elements {
        let id = element.get(key);
        let place = present.iter().position(|old| old.get(key) == id);
        let removed = object::text(element, &["$patch"]) == "delete";
        match place {
            Some(index) if removed => {
                present.remove(index);
            }
            Some(index) => {
                if let Some(old) = present.get_mut(index) {
                    apply(Flavour::Strategic, old, element);
                }
            }
            None if !removed => present.push(element.clone()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_patch_merges_maps_replaces_lists_and_removes_nulls() {
        let mut value = json!({"a": {"x": 1, "y": 2}, "l": [1, 2]});
        apply(Flavour::Merge, &mut value, &json!({"a": {"x": null, "z": {"n": null, "m": 3}}, "l": [3]}));
        assert_eq!(value, json!({"a": {"y": 2, "z": {"m": 3}}, "l": [3]}));
    }

    #[test]
    fn a_strategic_patch_merges_conditions_by_type() {
        let mut value = json!({"conditions": [{"type": "Ready", "status": "False", "n": 1}, {"type": "B"}]});
        apply(
            Flavour::Strategic,
            &mut value,
            &json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "C"}, {"type": "B", "$patch": "delete"}]}),
        );
        assert_eq!(value, json!({"conditions": [{"type": "Ready", "status": "True", "n": 1}, {"type": "C"}]}));
    }

    #[test]
    fn json_patch_and_apply_are_refused() {
        for kind in ["application/json-patch+json", "application/apply-patch+yaml"] {
            assert_eq!(Flavour::of(kind).expect_err(kind).code, 415);
        }
    }
}
