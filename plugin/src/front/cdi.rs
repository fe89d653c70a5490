//! CDI files: what a container gets for a GPU, in a form that container runtimes read, one file for each GPU.
//!
//! The form is that of the Container Device Interface 0.5.0. The text is JSON, which every YAML parser reads.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::base::files;
use crate::offer::Offered;
use crate::offer::hand_over::{ContainerEdits, Files, Given, Item};

const VERSION: &str = "0.5.0";

/// Writes what the CDI names of an offer mean, where this plugin describes them: each file completely, or not at all.
///
/// # Errors
/// The system's, with the file; an earlier file is then left as it was.
pub(super) fn describe(Offered { offer, pool }: &Offered) -> Result<(), (PathBuf, io::Error)> {
    let Some(cdi) = offer.hand_over.cdi() else { return Ok(()) };
    let Some(directory) = &cdi.directory else { return Ok(()) };
    // whichever offer names the GPU: monitoring engines are for those that show all
    let left_out = |item: &Item| matches!(item, Item::Cdi(_) | Item::Files(Files::Monitoring, _));
    let plain = offer.hand_over.without(left_out);
    for host in pool.hosts().filter(|host| host.device.usable()) {
        let name = &*host.origin.name;
        let path = directory.join(format!("{}-{name}.yaml", cdi.kind.replace('/', "-")));
        let text = text(&cdi.kind, name, &plain.edits(&Given::one(host)));
        let written =
            std::fs::create_dir_all(directory).and_then(|()| files::update(&path, text.as_bytes(), 0o644));
        written.map_err(|error| (path, error))?;
    }
    Ok(())
}

/// `edits`: what a container with this GPU alone gets.
fn text(kind: &str, name: &str, edits: &ContainerEdits) -> String {
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
    json!({ "cdiVersion": VERSION, "kind": kind, "devices": devices }).to_string() + "\n"
}
