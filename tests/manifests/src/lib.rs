//! Tests only: manifests, chart, images, examples and documentation agree with the code.

use std::path::Path;

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Compares a file with its rendered text, or writes it where KERF_WRITE_DOCS is 1.
///
/// # Panics
/// Where the file differs, or cannot be read or written.
pub fn same_or_written(path: &str, rendered: &str) {
    let file = root().join(path);
    if std::env::var_os("KERF_WRITE_DOCS").is_some_and(|value| value == "1") {
        let folder = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        // whole at once: other tests read the pages meanwhile
        let staged = file.with_extension("new");
        let written = folder.and_then(|()| std::fs::write(&staged, rendered));
        let written = written.and_then(|()| std::fs::rename(&staged, &file));
        assert!(written.is_ok(), "{path}: {written:?}");
        return;
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = written.lines().zip(rendered.lines()).find(|(written, rendered)| written != rendered);
    assert!(
        written == rendered,
        "{path} is not what the code says; run this test with KERF_WRITE_DOCS=1. First difference: {differs:?}"
    );
}
