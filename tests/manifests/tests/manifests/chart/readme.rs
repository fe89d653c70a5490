//! The table of values in the chart's README is rendered from `values.yaml`, with the comments there.

use std::fmt::Write as _;

use kerf_manifests::same_or_written;
use serde_json::Value;

use crate::reading::text;

const README: &str = "charts/kerf/README.md";
const MARK: &str =
    "<!-- From here on rendered from values.yaml by tests/manifests; run that test with KERF_WRITE_DOCS=1. -->\n";

/// A key of the file.
struct Key {
    path: Vec<String>,
    /// The comment above it.
    comment: String,
}

/// The keys of a YAML file whose maps are written out, with the comments above them.
fn keys(file: &str) -> Vec<Key> {
    let (mut keys, mut path, mut comment) = (Vec::new(), Vec::<String>::new(), Vec::new());
    for line in file.lines() {
        let content = line.trim_start();
        if let Some(words) = content.strip_prefix('#') {
            comment.push(words.trim());
        } else if content.is_empty() {
            comment.clear();
        } else {
            let (key, _) = content.split_once(':').unwrap_or_else(|| panic!("no key: {line}"));
            path.truncate((line.len() - content.len()) / 2);
            path.push(key.to_owned());
            keys.push(Key { path: path.clone(), comment: comment.join(" ") });
            comment.clear();
        }
    }
    keys
}

fn at<'a>(values: &'a Value, path: &[String]) -> &'a Value {
    path.iter().fold(values, |value, key| &value[key])
}

fn rendered() -> String {
    let file = text("charts/kerf/values.yaml");
    let values: Value = serde_saphyr::from_str(&file).unwrap();
    let keys = keys(&file);
    let below = |path: &[String]| {
        keys.iter().filter(move |key| key.path.len() > path.len() && key.path.starts_with(path)).collect::<Vec<_>>()
    };
    let mut whole: Option<&[String]> = None;
    let (mut single, mut sections) = (String::new(), String::new());
    for key in &keys {
        let (name, path) = (key.path.join("."), &key.path);
        if whole.is_some_and(|whole| path.starts_with(whole)) {
            // a part of a value that is described as a whole
            assert!(key.comment.is_empty(), "{name}");
            continue;
        }
        let section = below(path).iter().any(|key| !key.comment.is_empty());
        if section && path.len() == 1 {
            write!(
                sections,
                "\n### {name}\n\n{}\n\n| value | default | meaning |\n| --- | --- | --- |\n",
                key.comment
            )
            .unwrap();
        } else if section {
            if !key.comment.is_empty() {
                writeln!(sections, "| `{name}` | | {} |", key.comment).unwrap();
            }
        } else {
            assert!(!key.comment.is_empty(), "values.yaml: no word on {name}");
            whole = Some(path.as_slice());
            let default = at(&values, path);
            let row = format!("| `{name}` | `{default}` | {} |\n", key.comment);
            if path.len() == 1 { single += &row } else { sections += &row }
        }
    }
    format!("## Values\n\n| value | default | meaning |\n| --- | --- | --- |\n{single}{sections}")
}

#[test]
fn the_readme_describes_every_value() {
    let readme = text(README);
    let (head, _) = readme.split_once(MARK).unwrap_or_else(|| panic!("{README} has no line {MARK}"));
    same_or_written(README, &format!("{head}{MARK}\n{}", rendered()));
}
