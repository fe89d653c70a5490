//! The crates of the workspace and their files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::source::{Source, Text};

#[derive(Deserialize)]
struct Manifest {
    workspace: Members,
}

#[derive(Deserialize)]
struct Members {
    members: Vec<String>,
}

/// Every crate of every package, except tests. A file below `src` that no crate reads is an error: otherwise a crate
/// could pass because it was not looked at.
pub fn sources() -> Vec<Source> {
    let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let members = members(repository);
    let text = |path: &str| fs::read_to_string(repository.join(path)).ok();
    let packages = members.iter().map(|member| format!("{member}/")).chain([String::new()]);
    packages.flat_map(|package| of_package(repository, &package, &text)).collect()
}

/// It compiles the limiter's files and the contract's once more, with atomic integers that it controls: that is its check.
const COMPILES_OTHERS: &str = "limiter/interleavings";

/// The files that a package takes from outside of it with `#[path]`, by the file that does, tests too.
pub fn taken_from_elsewhere() -> BTreeMap<String, String> {
    let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let members = members(repository);
    let package = |file: &str| {
        let holds = |member: &&String| file.starts_with(&format!("{member}/"));
        members.iter().filter(holds).max_by_key(|member| member.len()).cloned().unwrap_or_default()
    };
    let mut taken = BTreeMap::new();
    for folder in members.iter().map(String::as_str).chain(["src", "tests", "benches"]) {
        for file in files(repository, folder, true).into_iter().filter(|file| package(file) != COMPILES_OTHERS) {
            let text = fs::read_to_string(repository.join(&file)).unwrap();
            let paths =
                text.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"));
            for path in paths {
                let other = Path::new(&file).parent().unwrap().join(path);
                let other = repository.join(other).canonicalize().unwrap();
                let other =
                    other.strip_prefix(repository.canonicalize().unwrap()).unwrap().to_str().unwrap().to_owned();
                if package(&file) != package(&other) {
                    taken.insert(file.clone(), format!("  takes {other}\n"));
                }
            }
        }
    }
    taken
}

fn members(repository: &Path) -> Vec<String> {
    let manifest = fs::read_to_string(repository.join("Cargo.toml")).unwrap();
    toml::from_str::<Manifest>(&manifest).unwrap().workspace.members
}

fn of_package(repository: &Path, package: &str, text: Text<'_>) -> Vec<Source> {
    let direct = |folder: &str| {
        let mut files = files(repository, &format!("{package}{folder}"), false);
        files.sort();
        files
    };
    let mut roots: Vec<String> =
        ["build.rs", "src/lib.rs", "src/main.rs"].map(|root| format!("{package}{root}")).into();
    roots.retain(|root| text(root).is_some());
    roots.extend(["src/bin", "examples", "benches"].into_iter().flat_map(direct));
    let benches = files(repository, &format!("{package}benches"), true).into_iter();
    roots.extend(benches.filter(|file| file.ends_with("/main.rs")));
    let sources: Vec<Source> = roots.iter().map(|root| Source::read(root, text)).collect();
    let read: BTreeSet<&str> =
        sources.iter().flat_map(|source| source.files.iter().map(|file| file.path.as_str())).collect();
    let tests: BTreeSet<&str> = sources.iter().flat_map(|source| source.tests.iter().map(String::as_str)).collect();
    for file in files(repository, &format!("{package}src"), true) {
        let below = |test: &&str| file == **test || file.starts_with(&format!("{}/", test.trim_end_matches(".rs")));
        assert!(
            read.contains(file.as_str()) || tests.iter().any(below),
            "no `mod` declares {file}: declare it, or delete it"
        );
    }
    sources
}

/// The `.rs` files of a folder, relative to the repository's root.
fn files(repository: &Path, folder: &str, below: bool) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(repository.join(folder)) else { return found };
    for entry in entries {
        let entry = entry.unwrap();
        let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            if below {
                found.extend(files(repository, &name, true));
            }
        } else if name.ends_with(".rs") {
            found.push(name);
        }
    }
    found
}
