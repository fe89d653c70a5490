//! The shape of the code, in every crate: no file imports another that imports it back, files and functions stay short,
//! and the plugin's folders keep to their layers. Tests are not measured. `exceptions.rs` lists violations that still
//! exist; the lists only ever become shorter.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod exceptions;
mod imports;
mod layers;
mod made_up;
mod source;
mod workspace;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use imports::Imports;
use source::{File, Source};

/// The most lines of a file, without tests.
const FILE_LINES: usize = 400;
/// A function has fewer lines, from its signature to its closing brace.
const FUNCTION_LINES: usize = 80;

static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(workspace::sources);

fn files() -> impl Iterator<Item = &'static File> {
    SOURCES.iter().flat_map(|source| &source.files).filter(|file| !file.generated)
}

#[test]
fn no_file_imports_another_that_imports_it_back() {
    let imports: Vec<Imports> = SOURCES.iter().map(Imports::of).collect();
    let cycles: BTreeMap<&str, String> = imports.iter().flat_map(Imports::cycles).collect();
    let found = cycles.into_iter().map(|(file, way)| (file.to_owned(), way)).collect();
    only_exceptions(
        &found,
        exceptions::CYCLES,
        "These files stand in a cycle of imports. Move what both sides need into a file of its own that imports neither, or \
         hand it over as an argument. A parent module that holds code does not import a child that imports it back: its \
         types move into a file beside the child.",
    );
    assert!(imports.iter().flat_map(Imports::all).count() > 400, "the imports were not found");
}

#[test]
fn files_are_short() {
    let long = files().filter(|file| file.lines > FILE_LINES);
    let found = long.map(|file| (file.path.clone(), format!("  {} lines\n", file.lines))).collect();
    only_exceptions(
        &found,
        exceptions::LONG_FILES,
        &format!("These files have more than {FILE_LINES} lines outside of tests. Split them: a noun per file."),
    );
    assert!(files().count() > 250, "the files were not found");
}

#[test]
fn functions_are_short() {
    let functions = || files().flat_map(|file| file.functions.iter().map(move |function| (file, function)));
    let found = functions()
        .filter(|(_, function)| function.lines >= FUNCTION_LINES)
        .map(|(file, function)| {
            (format!("{} {}", file.path, function.name), format!("  {} lines\n", function.lines))
        })
        .collect();
    only_exceptions(
        &found,
        exceptions::LONG_FUNCTIONS,
        &format!("These functions have {FUNCTION_LINES} lines or more. Split them by what they do, step by step."),
    );
    assert!(functions().count() > 2000, "the functions were not found");
}

#[test]
fn no_package_takes_files_of_another() {
    only_exceptions(
        &workspace::taken_from_elsewhere(),
        &[],
        "These files take a file of another package with #[path]. What two packages share is a package of its own.",
    );
}

#[test]
fn the_plugin_keeps_to_its_layers() {
    let imports: Vec<Imports> = SOURCES.iter().map(Imports::of).collect();
    let wrong = imports.iter().flat_map(Imports::all).filter_map(|(from, to, import)| {
        let why = layers::wrong(from, to)?;
        Some((format!("{from} -> {to}"), format!("  line {}, {}: {why}\n", import.line, import.path)))
    });
    only_exceptions(
        &wrong.collect(),
        exceptions::LAYERS,
        "These imports of plugin/src run upwards or across (the layers stand in tests/structure/tests/shape/layers.rs). \
         Move what is needed into the lower folder, or let the upper one hand it over.",
    );
}

/// Fails for violations that are not listed, with advice, and for listed ones that were not found.
fn only_exceptions(found: &BTreeMap<String, String>, listed: &[&str], advice: &str) {
    let new: String = found
        .iter()
        .filter(|(what, _)| !listed.contains(&what.as_str()))
        .map(|(what, detail)| format!("{what}\n{detail}"))
        .collect();
    assert!(new.is_empty(), "{advice}\n\n{new}");
    let gone: Vec<&&str> = listed.iter().filter(|what| !found.contains_key(**what)).collect();
    assert!(
        gone.is_empty(),
        "These exceptions are no longer needed; delete their lines in tests/structure/tests/shape/exceptions.rs: {gone:#?}"
    );
}
