//! CDI files: what a container gets for a card, in a form that container runtimes read, one file for each card.
//!
//! The form is that of the Container Device Interface 0.5.0. The text is JSON, which every reader of YAML reads.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::base::files;
use crate::device::backend::HostDevice;
use crate::device::roots::Roots;
use crate::offer::hand_over::{ByPath, Cdi, Gift};
use crate::vendor::intel::scan;

const VERSION: &str = "0.5.0";

/// A card's file: where it goes and what it says.
pub fn file(cdi: &Cdi, gift: &Gift, roots: &Roots, host: &HostDevice) -> Option<(PathBuf, String)> {
    let directory = cdi.directory.as_ref()?;
    let name = &host.origin.name;
    let nodes = host
        .control_nodes
        .iter()
        .chain(&host.nodes)
        .map(|node| json!({ "path": node, "hostPath": node, "permissions": gift.nodes.unwrap_or("rw") }));
    let paths = match gift.by_path {
        ByPath::None => Vec::new(),
        ByPath::Single => scan::by_path(roots, &host.pci),
        ByPath::All => vec!["/dev/dri/by-path".into()],
    };
    let mounts = paths
        .iter()
        .map(|path| json!({ "hostPath": path, "containerPath": path, "options": ["bind", "ro"], "type": "none" }));
    let mut edits = json!({ "deviceNodes": nodes.collect::<Vec<Value>>() });
    if !paths.is_empty() {
        edits["mounts"] = mounts.collect();
    }
    let devices = json!([{ "name": &**name, "containerEdits": edits }]);
    let text = json!({ "cdiVersion": VERSION, "kind": cdi.kind, "devices": devices }).to_string();
    let file = format!("{}-{name}.yaml", cdi.kind.replace('/', "-"));
    Some((directory.join(file), text + "\n"))
}

/// Writes a file where it says something else: whole, or not at all.
///
/// # Errors
/// What the system says; an earlier file is left as it was.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    files::update(path, text.as_bytes(), 0o644)
}
