//! The layers of `plugin/src`: a folder imports folders of lower layers and its own files, and no others.

/// Folders, and files beside the folders, with their layers. Two of the same layer never import each other.
const LAYERS: [(u8, &str); 20] = [
    // the process: files, sockets, backoff, control groups, counters
    (1, "base"),
    // values: a GPU on its host, what a scan found, ids, labels
    (2, "device"),
    // without IO: a resource as data; which container an Allocate call is for
    (3, "offer"),
    (3, "allocation"),
    // a folder for each vendor, and the table of vendors; the GPUs of the node over all sources
    (4, "vendor"),
    (4, "roster"),
    // a container's devices and mounts; shared memory; the API server; kubelet's sockets
    (5, "isolation"),
    (5, "state"),
    (5, "api"),
    (5, "kubelet"),
    // kubelet's list against the API server
    (6, "reconcile"),
    // requests for GPUs; loops that keep the state; outgoing reports
    (7, "front"),
    (7, "follow"),
    (7, "publish"),
    // from flags to values
    (8, "config"),
    // start
    (9, "tasks"),
    (9, "doctor"),
    (9, "prune"),
    (10, "lib"),
    (10, "main"),
];

const SOURCES: &str = "plugin/src/";

/// The violation in an import from one file to another; `None` where there is none.
pub fn wrong(from: &str, to: &str) -> Option<String> {
    let (from, to) = (folder(from)?, folder(to)?);
    let (Some(upper), Some(lower)) = (layer(from), layer(to)) else {
        let unknown = if layer(from).is_none() { from } else { to };
        return Some(format!("`{unknown}` has no layer in tests/structure/tests/shape/layers.rs"));
    };
    if from == to || lower < upper {
        return None;
    }
    Some(if lower == upper {
        format!("`{from}` and `{to}` are both of layer {upper}")
    } else {
        format!("`{from}` is of layer {upper}, below `{to}` of layer {lower}")
    })
}

fn layer(folder: &str) -> Option<u8> {
    LAYERS.iter().find(|(_, name)| *name == folder).map(|(layer, _)| *layer)
}

/// The first segment of a path below the sources.
fn folder(path: &str) -> Option<&str> {
    let below = path.strip_prefix(SOURCES)?;
    Some(below.split('/').next()?.trim_end_matches(".rs"))
}
