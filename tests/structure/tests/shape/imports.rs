//! The imports between the files of a crate, and cycles among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::source::Source;

/// The imports between the files of one crate: at most one from a file to another, the first in its text.
pub struct Imports {
    pub paths: Vec<String>,
    /// Imports of each file: the imported file by position in `paths`.
    from: Vec<BTreeMap<usize, Import>>,
    /// Files that only declare and re-export modules: the names in them do not count as imports.
    facades: BTreeSet<usize>,
}

#[derive(Clone)]
pub struct Import {
    pub line: usize,
    /// The path as written.
    pub path: String,
}

/// The target of a path.
#[derive(Clone, Copy)]
enum Found {
    Module(usize),
    /// An item in this module.
    Item(usize),
}

impl Imports {
    pub fn of(source: &Source) -> Self {
        let mut from = vec![BTreeMap::<usize, Import>::new(); source.files.len()];
        for (at, module) in source.modules.iter().enumerate() {
            for mention in &module.mentions {
                let Some(found) = resolve(source, at, &mention.path, &mut BTreeSet::new()) else { continue };
                let (Found::Module(found) | Found::Item(found)) = found;
                let to = source.modules[found].file;
                let import = Import { line: mention.line, path: mention.path.join("::") };
                if to != module.file {
                    let first = from[module.file].entry(to).or_insert_with(|| import.clone());
                    if import.line < first.line {
                        *first = import;
                    }
                }
            }
        }
        let paths = source.files.iter().map(|file| file.path.clone()).collect();
        let facades = source.files.iter().enumerate().filter(|(_, file)| !file.code).map(|(at, _)| at).collect();
        Self { paths, from, facades }
    }

    /// All imports: the importing file, the imported file, and the place.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str, &Import)> {
        let path = |file: usize| self.paths[file].as_str();
        self.from
            .iter()
            .enumerate()
            .flat_map(move |(file, to)| to.iter().map(move |(other, import)| (path(file), path(*other), import)))
    }

    /// Files that import themselves, directly or not; each with the shortest way around.
    pub fn cycles(&self) -> BTreeMap<&str, String> {
        let around = |file| self.way_around(file).map(|way| (self.paths[file].as_str(), self.describe(&way)));
        (0..self.paths.len()).filter_map(around).collect()
    }

    fn way_around(&self, start: usize) -> Option<Vec<usize>> {
        let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
        let mut waiting = VecDeque::from([start]);
        while let Some(file) = waiting.pop_front() {
            if self.facades.contains(&file) {
                continue;
            }
            for to in self.from[file].keys().copied() {
                if to == start {
                    let mut way = vec![start, file];
                    while way[way.len() - 1] != start {
                        way.push(came_from[&way[way.len() - 1]]);
                    }
                    way.reverse();
                    return Some(way);
                }
                if let std::collections::btree_map::Entry::Vacant(new) = came_from.entry(to) {
                    new.insert(file);
                    waiting.push_back(to);
                }
            }
        }
        None
    }

    fn describe(&self, way: &[usize]) -> String {
        let step = |pair: &[usize]| {
            let import = &self.from[pair[0]][&pair[1]];
            format!("  {}:{} imports {} ({})\n", self.paths[pair[0]], import.line, self.paths[pair[1]], import.path)
        };
        way.windows(2).map(step).collect()
    }
}

/// Follows a path from a module; `None` where it leads out of the crate.
fn resolve(source: &Source, from: usize, path: &[String], seen: &mut BTreeSet<(usize, String)>) -> Option<Found> {
    let (first, mut rest) = path.split_first()?;
    let mut at = match first.as_str() {
        "crate" => Found::Module(0),
        "self" => Found::Module(from),
        "super" => Found::Module(source.modules[from].parent?),
        name => lookup(source, from, name, seen)?,
    };
    while let (Found::Module(module), Some((name, after))) = (at, rest.split_first()) {
        at = match name.as_str() {
            "super" => Found::Module(source.modules[module].parent?),
            // a name that is not found was made by a macro there, or comes from another crate through that module
            name => lookup(source, module, name, seen).unwrap_or(Found::Item(module)),
        };
        rest = after;
    }
    Some(at)
}

/// The target of a name in a module.
fn lookup(source: &Source, module: usize, name: &str, seen: &mut BTreeSet<(usize, String)>) -> Option<Found> {
    let here = &source.modules[module];
    if let Some(child) = here.children.get(name) {
        return Some(Found::Module(*child));
    }
    if here.items.contains(name) {
        return Some(Found::Item(module));
    }
    // imports may form a cycle
    if !seen.insert((module, name.to_owned())) {
        return None;
    }
    let named = here.imports.iter().find(|import| import.name.as_deref() == Some(name));
    if let Some(import) = named {
        return resolve(source, module, &import.path, seen);
    }
    here.imports.iter().filter(|import| import.name.is_none()).find_map(|glob| {
        match resolve(source, module, &glob.path, &mut seen.clone())? {
            Found::Module(other) => lookup(source, other, name, seen),
            Found::Item(_) => None,
        }
    })
}
