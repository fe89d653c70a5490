//! CDI files: what a container gets for a GPU, in a form that container runtimes read, one file for each GPU.
//!
//! The form is that of the Container Device Interface 0.5.0. The text is JSON, which every YAML parser reads.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::base::files;
use crate::offer::hand_over::{Cdi, ContainerEdits};

const VERSION: &str = "0.5.0";

/// A GPU's file: its path and content. `edits`: what a container with this GPU alone gets.
pub fn file(cdi: &Cdi, edits: &ContainerEdits, name: &str) -> Option<(PathBuf, String)> {
    let directory = cdi.directory.as_ref()?;
    let nodes = edits
        .devices
        .iter()
        .map(|file| json!({ "path": file.path, "hostPath": file.path, "permissions": file.permissions }));
    let mut told = json!({ "deviceNodes": nodes.collect::<Vec<Value>>() });
    if !edits.mounts.is_empty() {
        let mounts = edits.mounts.iter().map(|mount| {
            json!({ "hostPath": mount.host, "containerPath": mount.container, "options": ["bind", "ro"], "type": "none" })
        });
        told["mounts"] = mounts.collect();
    }
    let devices = json!([{ "name": name, "containerEdits": told }]);
    let text = json!({ "cdiVersion": VERSION, "kind": cdi.kind, "devices": devices }).to_string();
    let file = format!("{}-{name}.yaml", cdi.kind.replace('/', "-"));
    Some((directory.join(file), text + "\n"))
}

/// Writes a file where its content differs: completely, or not at all.
///
/// # Errors
/// The system's; an earlier file is then left as it was.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    files::update(path, text.as_bytes(), 0o644)
}
