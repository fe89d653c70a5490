//! The boards for Grafana have the fields that Grafana's model of a dashboard has, and panels that fit. What their queries
//! give is tested in `tests/system`, on a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use kerf_manifests::root;
use serde::Deserialize;
use serde_json::Value;

/// Grafana has 24 columns.
const COLUMNS: u32 = 24;
/// Units of Grafana that the boards use.
const UNITS: [&str; 7] = ["short", "percentunit", "bytes", "ops", "s", "celsius", "watt"];
/// Kinds of panel that every Grafana has.
const KINDS: [&str; 6] = ["row", "stat", "timeseries", "table", "bargauge", "state-timeline"];
/// Variables that Grafana itself has.
const BUILT_IN: [&str; 3] = ["__rate_interval", "__range", "__value"];

/// As in `kinds/dashboard` of Grafana's schema, without what the boards do not use: a misspelt field would be ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Board {
    uid: String,
    title: String,
    description: String,
    tags: Vec<String>,
    schema_version: u32,
    #[serde(rename = "version")]
    _version: u32,
    #[serde(rename = "editable")]
    _editable: bool,
    #[serde(rename = "graphTooltip")]
    _graph_tooltip: u8,
    #[serde(rename = "refresh")]
    _refresh: String,
    #[serde(rename = "time")]
    _time: Time,
    #[serde(rename = "timezone")]
    _timezone: String,
    #[serde(rename = "links")]
    _links: Vec<Value>,
    templating: Templating,
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Time {
    #[serde(rename = "from")]
    _from: String,
    #[serde(rename = "to")]
    _to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Templating {
    list: Vec<Variable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Variable {
    name: String,
    label: String,
    #[serde(rename = "type")]
    kind: String,
    query: Value,
    datasource: Option<DataSource>,
    definition: Option<String>,
    #[serde(rename = "refresh")]
    _refresh: Option<u8>,
    #[serde(rename = "sort")]
    _sort: Option<u8>,
    #[serde(rename = "multi", default)]
    _multi: bool,
    #[serde(default)]
    include_all: bool,
    all_value: Option<String>,
    #[serde(rename = "current")]
    _current: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DataSource {
    #[serde(rename = "type")]
    kind: String,
    uid: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Panel {
    id: u32,
    #[serde(rename = "type")]
    kind: String,
    title: String,
    #[serde(rename = "description", default)]
    _description: String,
    datasource: Option<DataSource>,
    grid_pos: Place,
    #[serde(default)]
    field_config: FieldConfig,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(rename = "options")]
    _options: Option<Value>,
    #[serde(default)]
    transformations: Vec<Transformation>,
    #[serde(rename = "collapsed", default)]
    _collapsed: bool,
    #[serde(default)]
    panels: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    h: u32,
    w: u32,
    x: u32,
    y: u32,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldConfig {
    defaults: Defaults,
    overrides: Vec<Override>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    unit: String,
    #[serde(rename = "min")]
    _min: Option<f64>,
    #[serde(rename = "max")]
    _max: Option<f64>,
    #[serde(rename = "thresholds")]
    _thresholds: Option<Value>,
    #[serde(rename = "custom")]
    _custom: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Override {
    matcher: Matcher,
    properties: Vec<Property>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matcher {
    id: String,
    options: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Property {
    id: String,
    value: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transformation {
    id: String,
    options: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Target {
    ref_id: String,
    datasource: DataSource,
    expr: String,
    #[serde(rename = "legendFormat")]
    _legend_format: Option<String>,
    #[serde(default)]
    instant: bool,
    #[serde(default)]
    format: String,
}

impl DataSource {
    /// The one that the reader chooses.
    fn is_chosen(&self) -> bool {
        self.kind == "prometheus" && self.uid == "${datasource}"
    }
}

/// The names after `$` in a text.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    let names = text.split('$').skip(1).map(|rest| rest.trim_start_matches('{'));
    names.map(|rest| rest.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default())
}

fn boards() -> BTreeMap<String, Board> {
    let folder = root().join("manifests/components/dashboards");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let board = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path.file_name().unwrap().to_string_lossy().into_owned(), board)
    };
    files.map(read).collect()
}

#[test]
fn every_board_is_one_that_grafana_understands() {
    let boards = boards();
    assert_eq!(boards.keys().collect::<Vec<_>>(), ["cluster.json", "namespace.json", "node.json"]);
    for (file, board) in &boards {
        assert_eq!(board.uid, format!("kerf-{}", file.trim_end_matches(".json")));
        assert!(board.title.starts_with("kerf / ") && !board.description.is_empty(), "{file}");
        assert!(board.tags.contains(&"kerf".to_owned()) && board.schema_version >= 39, "{file}");
        let mut known: BTreeSet<&str> = BUILT_IN.into();
        for variable in &board.templating.list {
            let name = variable.name.as_str();
            known.insert(name);
            assert!(!variable.label.is_empty(), "{file}: {name}");
            if variable.kind == "datasource" {
                assert_eq!((name, variable.query.as_str()), ("datasource", Some("prometheus")));
                continue;
            }
            assert_eq!(variable.kind, "query");
            assert!(variable.datasource.as_ref().is_some_and(DataSource::is_chosen), "{file}: {name}");
            assert_eq!(variable.query["query"].as_str(), variable.definition.as_deref(), "{file}: {name}");
            assert!(variable.include_all && variable.all_value.as_deref() == Some(".+"), "{file}: {name}");
        }
        panels_fit(file, &board.panels);
        for panel in &board.panels {
            let of = format!("{file}: {}", panel.title);
            assert!(KINDS.contains(&panel.kind.as_str()) && !panel.title.is_empty(), "{of}");
            if panel.kind == "row" {
                assert!(panel.targets.is_empty() && panel.panels.is_empty(), "{of}");
                continue;
            }
            assert!(panel.datasource.as_ref().is_some_and(DataSource::is_chosen), "{of}");
            assert!(UNITS.contains(&panel.field_config.defaults.unit.as_str()), "{of}");
            queries_are_whole(&of, panel, &known);
            columns_exist(&of, panel, &boards);
        }
    }
}

/// Within the columns, and none over another.
fn panels_fit(file: &str, panels: &[Panel]) {
    let ids: BTreeSet<u32> = panels.iter().map(|panel| panel.id).collect();
    assert_eq!(ids.len(), panels.len(), "{file}: an id twice");
    let mut taken = BTreeMap::new();
    for panel in panels {
        let Place { h, w, x, y } = panel.grid_pos;
        assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{file}: {}", panel.title);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            let other = taken.insert(cell, &panel.title);
            assert_eq!(other, None, "{file}: {} is over it", panel.title);
        }
    }
}

fn queries_are_whole(of: &str, panel: &Panel, known: &BTreeSet<&str>) {
    assert!(!panel.targets.is_empty(), "{of}");
    let references: BTreeSet<&str> = panel.targets.iter().map(|target| target.ref_id.as_str()).collect();
    assert_eq!(references.len(), panel.targets.len(), "{of}");
    let over_time = ["timeseries", "state-timeline"].contains(&panel.kind.as_str());
    for target in &panel.targets {
        assert!(target.datasource.is_chosen() && !target.expr.is_empty(), "{of}");
        assert!(target.instant != over_time && (target.format == "table") == (panel.kind == "table"), "{of}");
        for variable in variables(&target.expr) {
            assert!(known.contains(variable), "{of}: ${variable}");
        }
    }
}

/// What a table renames, hides and formats are its columns; its links lead to a board.
fn columns_exist(of: &str, panel: &Panel, boards: &BTreeMap<String, Board>) {
    assert_eq!(panel.kind == "table", !panel.transformations.is_empty(), "{of}");
    let mut shown: BTreeSet<&str> = BTreeSet::new();
    for transformation in &panel.transformations {
        assert!(["merge", "organize"].contains(&transformation.id.as_str()), "{of}");
        let renamed = transformation.options["renameByName"].as_object();
        for (from, to) in renamed.into_iter().flatten() {
            let value = from.strip_prefix("Value #");
            let exists =
                value.is_none_or(|reference| panel.targets.iter().any(|target| target.ref_id == reference));
            assert!(exists, "{of}: {from}");
            shown.insert(to.as_str().unwrap());
        }
    }
    for Override { matcher, properties } in &panel.field_config.overrides {
        assert!(matcher.id == "byName" && shown.contains(matcher.options.as_str()), "{of}: {}", matcher.options);
        for property in properties {
            match property.id.as_str() {
                "unit" => assert!(UNITS.contains(&property.value.as_str().unwrap()), "{of}: {}", property.value),
                "links" => {
                    let url = property.value[0]["url"].as_str().unwrap();
                    let uid = url.strip_prefix("/d/").and_then(|rest| rest.split('?').next()).unwrap();
                    assert!(boards.values().any(|board| board.uid == uid), "{of}: {url}");
                }
                other => panic!("{of}: {other}"),
            }
        }
    }
}
