//! The pods of `examples/pods`.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

/// Every pod of the folder, by file name, with the defaults that a real API server fills in.
pub fn examples() -> anyhow::Result<Vec<Value>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pods");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file)?;
            let mut pod: Value = serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
            pod["metadata"]["namespace"] = "default".into();
            pod["status"] = json!({ "phase": "Pending" });
            for list in ["initContainers", "containers"] {
                for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
                    default_amounts(container);
                }
            }
            Ok(pod)
        })
        .collect()
}

/// Amounts are strings on the wire, and requests equal limits where only those are given.
fn default_amounts(container: &mut Value) {
    let Some(limits) = container["resources"]["limits"].as_object_mut() else { return };
    for amount in limits.values_mut().filter(|amount| amount.is_number()) {
        *amount = amount.to_string().into();
    }
    let limits = limits.clone();
    container["resources"]["requests"] = limits.into();
}
