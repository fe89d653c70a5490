//! Tests alone: manifests, images, examples and documentation say what the code says.

use std::path::Path;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
