//! YAML files as values, and values as types in which every field must be known.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use kerf_manifests::root;

pub fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn yaml_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            yaml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
}

/// Every document of every YAML file below a directory, with the file it is in.
pub fn documents(directory: &str) -> Vec<(String, Value)> {
    let mut files = Vec::new();
    yaml_files(&root().join(directory), &mut files);
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let values: Vec<Value> =
            serde_saphyr::from_multiple(&text(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        values.into_iter().map(move |value| (name.clone(), value))
    };
    files.iter().flat_map(read).collect()
}

/// Reads a value as `T`, in which every field of it must be known.
pub fn strict<T: DeserializeOwned + Serialize>(name: &str, value: &Value) -> T {
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    contained(name, value, &serde_json::to_value(&read).unwrap());
    read
}

/// Every leaf of `part` must be in `whole`: a missing one was dropped because its field is unknown.
pub fn contained(at: &str, part: &Value, whole: &Value) {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            for (key, value) in part {
                contained(
                    &format!("{at}.{key}"),
                    value,
                    whole.get(key).unwrap_or_else(|| panic!("{at}.{key}: unknown")),
                );
            }
        }
        (Value::Array(part), Value::Array(whole)) => {
            assert_eq!(part.len(), whole.len(), "{at}");
            for (index, (part, whole)) in part.iter().zip(whole).enumerate() {
                contained(&format!("{at}[{index}]"), part, whole);
            }
        }
        // amounts are written as numbers and kept as text
        (Value::Number(part), Value::String(whole)) => assert_eq!(part.to_string(), *whole, "{at}"),
        (part, whole) => assert_eq!(part, whole, "{at}"),
    }
}

pub fn of_kind<T: DeserializeOwned + Serialize>(directory: &str, kind: &str) -> Vec<T> {
    let documents = documents(directory).into_iter().filter(|(_, value)| value["kind"] == kind);
    documents.map(|(name, value)| strict(&name, &value)).collect()
}

pub fn only<T>(mut values: Vec<T>) -> T {
    assert_eq!(values.len(), 1);
    values.remove(0)
}
