//! The documentation agrees with the code. The pages of `docs/reference` are rendered from the programs' flags, metrics
//! and annotations and compared with the files; with `KERF_WRITE_DOCS=1` the files are written instead. Messages that
//! users see are in `docs/pods.md`, metrics that any page names exist, and every relative link has a target.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::CommandFactory;
use kerf::annotation::Keys;
use kerf::ids::NodeName;
use kerf::request::{ContainerKind, GpuRequest, RawAnnotations, RawContainer, RequestError};
use kerf::unfit::Unfit;
use kerf_manifests::{root, same_or_written};
use kerf_runtime::about::About;
use kerf_runtime::feed::Ages;
use prometheus::Registry;
use prometheus::core::{Collector, Desc};

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const ALERTS: &str = "manifests/components/alerts/alerts.yaml";

/// READMEs, changelog and every page below `docs`, relative to the repository.
fn pages() -> Vec<String> {
    fn below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => below(&path, found),
                Some(extension) if extension == "md" => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = ["README.md", "CHANGELOG.md", "charts/kerf/README.md"].map(|page| root().join(page)).to_vec();
    below(&root().join("docs"), &mut found);
    found.sort();
    found.iter().map(|path| path.strip_prefix(root()).unwrap().display().to_string()).collect()
}

// === pages rendered from the code ===

const GENERATED: &str = "<!-- Rendered from the code by tests/manifests/tests/docs.rs; to change it, change the code and run that test with KERF_WRITE_DOCS=1. -->\n\n";

/// Escapes a table cell: a bar does not end it, and an angle bracket outside of code is not taken for HTML.
fn cell(text: &str) -> String {
    let mut parts = text.split('`');
    let plain = |part: &str| part.replace('<', "&lt;").replace('>', "&gt;");
    let mut cell = plain(parts.next().unwrap_or_default());
    for (at, part) in parts.enumerate() {
        cell.push('`');
        cell.push_str(&if at % 2 == 0 { part.to_owned() } else { plain(part) });
    }
    cell.replace('|', "\\|")
}

fn flags() -> String {
    let mut page = format!(
        "{GENERATED}# Flags\n\nLook up what a flag of `kerf-extender` or `kerf-plugin` does, its default, and the environment \
         variable that sets it instead. `kerf-extender --help` and `kerf-plugin --help` print the same, but for \
         a few hidden flags that are named below. What to set when: \
         [install](../install.md), [vendors](../vendors/README.md), [isolation](../isolation.md), \
         [operate](../operate.md).\n\nBoth programs exit at once, with status 2 and the name of the flag, when a value is not valid.\n"
    );
    let commands = [
        (kerf_extender::config::Args::command(), ""),
        (
            kerf_plugin::config::Args::command(),
            "All flags of the plugin can be written with one dash, as the vendors' plugins have them (`-pulse=10`). The same \
             flags go with `kerf-plugin doctor`, which alone reads `--json`. `--v`, `--logtostderr` and `--stderrthreshold` \
             are accepted without effect. `kerf-plugin --help` leaves these three and `--json` out.\n\n",
        ),
        (
            kerf_plugin::prune::Args::command(),
            "What a job runs after kerf was [uninstalled](../install.md#uninstall).\n\n",
        ),
    ];
    for (command, note) in commands {
        // general flags, then those that say what is offered, then the rest by name
        let mut sections: BTreeMap<(bool, Option<String>), String> = BTreeMap::new();
        for argument in command.get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            let heading = argument.get_help_heading().map(str::to_owned);
            let place = heading.as_deref().is_some_and(|heading| heading != "Profiles");
            let variable = argument.get_env().map(|name| format!("`{}`", name.to_str().unwrap()));
            let takes =
                argument.get_action().takes_values() && argument.get_num_args().is_none_or(|n| n.min_values() > 0);
            let defaults: Vec<&str> =
                argument.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
            let default = match defaults[..] {
                _ if argument.is_hide_default_value_set() => String::new(),
                _ if matches!(argument.get_action(), clap::ArgAction::SetTrue) => "off".to_owned(),
                ["false"] if !takes => "off".to_owned(),
                [] | [""] => String::new(),
                _ => format!("`{}`", defaults.join(",")),
            };
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let mut help = cell(help.split(" [default: ").next().unwrap());
            let told = argument.get_help().map(ToString::to_string).unwrap_or_default();
            let default = match told.split_once(" [default: ") {
                Some((_, told)) => cell(told.trim_end_matches(']')),
                None => default,
            };
            let values = argument.get_possible_values();
            if takes && !values.is_empty() {
                let value = |value: &clap::builder::PossibleValue| match value.get_help() {
                    Some(help) => {
                        let help = help.to_string();
                        format!("`{}`: {}", value.get_name(), cell(help.trim_end_matches('.')))
                    }
                    None => format!("`{}`", value.get_name()),
                };
                let values: Vec<String> = values.iter().map(value).collect();
                write!(help, ".<br>{}", values.join("<br>")).unwrap();
            }
            let variable = variable.unwrap_or_default();
            writeln!(
                sections.entry((place, heading)).or_default(),
                "| `--{long}` | {variable} | {default} | {help} |"
            )
            .unwrap();
        }
        write!(page, "\n## {}\n\n{note}", command.get_name()).unwrap();
        for (at, ((_, heading), rows)) in sections.into_iter().enumerate() {
            if at > 0 {
                page.push('\n');
            }
            if let Some(heading) = heading {
                write!(page, "### {heading}\n\n").unwrap();
            }
            write!(page, "| flag | environment | default | meaning |\n| --- | --- | --- | --- |\n{rows}").unwrap();
        }
    }
    page
}

/// All metrics of each program, sorted by name.
fn descs() -> [(&'static str, Vec<Desc>); 2] {
    let age = |name| Ages::new(name, []).unwrap().desc().into_iter().cloned().collect::<Vec<_>>();
    let registry = Registry::new();
    let metrics = kerf_extender::metrics::Metrics::new(&registry, Arc::default(), Arc::default()).unwrap();
    let mut extender = metrics.descs().unwrap();
    extender.extend(age(kerf_extender::metrics::WATCH_AGE));
    let about = || About::new("").unwrap().desc().into_iter().cloned().collect::<Vec<_>>();
    extender.extend(about());

    let counters = kerf_plugin::testing::counters::Counters::new(&Registry::new()).unwrap();
    let kerf_plugin::testing::counters::Counters {
        registrations,
        allocations,
        starts,
        swaps,
        moves,
        reconcile_errors,
        backend_errors,
        breaches,
        api_errors,
    } = &counters;
    let vectors = [registrations, allocations, starts, backend_errors, breaches, api_errors];
    let gauges =
        kerf_plugin::testing::metrics::Gauges::new(kerf_plugin::testing::State::default(), NodeName::from(""))
            .unwrap();
    let complaints = kerf_plugin::testing::metrics::Complaints::new(Arc::default()).unwrap();
    let left_out = kerf_plugin::testing::metrics::LeftOutGauge::new(
        kerf_plugin::testing::LeftOut::default(),
        NodeName::from(""),
    )
    .unwrap();
    let mut plugin: Vec<Desc> = vectors.into_iter().flat_map(Collector::desc).cloned().collect();
    plugin.extend([swaps, moves, reconcile_errors].into_iter().flat_map(Collector::desc).cloned());
    plugin.extend(gauges.desc().into_iter().chain(complaints.desc()).chain(left_out.desc()).cloned());
    plugin.extend(age(kerf_plugin::testing::metrics::WATCH_AGE));
    plugin.extend(about());

    [("kerf-extender", extender), ("kerf-plugin", plugin)].map(|(program, mut descs)| {
        descs.sort_by(|a, b| {
            (!a.fq_name.starts_with("kerf_"), &a.fq_name).cmp(&(!b.fq_name.starts_with("kerf_"), &b.fq_name))
        });
        (program, descs)
    })
}

fn metrics() -> String {
    let mut page = format!(
        "{GENERATED}# Metrics\n\nLook up what a metric says and which labels it has. Which of them to watch, and what to do \
         when they rise: [monitoring](../monitoring.md#metrics-to-watch).\n\nThe extender serves `/metrics` on port 3457, the \
         plugin on 9394.\n"
    );
    for (program, descs) in descs() {
        write!(page, "\n## {program}\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n")
            .unwrap();
        for desc in descs {
            let name = &desc.fq_name;
            let kind = match () {
                () if name.starts_with("kerf_") && name.ends_with("_total") => "counter",
                () if name.ends_with("_duration_seconds") => "histogram",
                () => "gauge",
            };
            let labels: Vec<String> = desc.variable_labels.iter().map(|label| format!("`{label}`")).collect();
            let help = cell(desc.help.trim_end_matches('.'));
            writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
        }
    }
    page
}

/// One row: key, object, writer, content.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str);

fn annotations() -> String {
    // a key that is missing here does not compile
    let Keys {
        domain,
        core,
        memory,
        core_limit,
        policy,
        isolation,
        shares,
        isolated,
        placement,
        predicate_node,
        predicate_time,
        predicate_gpu_idx,
        gpu_assigned,
        inventory,
        labels,
        cordon,
        starting,
        share_resources: _,
    } = Keys::default();
    let resources: [Row<'_>; 2] = [
        (&core, "container", "you", "compute; 100 is one GPU"),
        (&memory, "container", "you", "GPU memory in units of 256 MiB"),
    ];
    let wanted: [Row<'_>; 4] = [
        (&core_limit, "Pod", "you", "ceiling for bursts, in percent of a GPU; quoted"),
        (&policy, "Pod", "you", "placement policy of this pod"),
        (&isolation, "Pod", "you", "minimum isolation of the pod's shares"),
        (&shares, "Pod", "you", "where counted shares must be: `same-card` or `different-cards`"),
    ];
    let records: [Row<'_>; 6] = [
        (
            &placement,
            "Pod",
            "extender at bind; plugin where kubelet's records differ",
            "the placement: versioned JSON by container name and GPU UUID. This is the authoritative record",
        ),
        (&gpu_assigned, "Pod", "extender: `false`; plugin: `true`", "whether the node has confirmed the placement"),
        (
            &isolated,
            "Pod",
            "plugin",
            "which isolation enforces each container's share: JSON by container name. Whole GPUs and counted shares are not \
             in it",
        ),
        (&predicate_node, "Pod", "as the placement", "the node, in gpu-admission's format"),
        (
            &predicate_time,
            "Pod",
            "as the placement",
            "time of the decision in Unix nanoseconds, in gpu-admission's format",
        ),
        (
            &format!("{predicate_gpu_idx}<i>"),
            "Pod",
            "as the placement",
            "GPU indices of container `i`, in gpu-admission's format. Read where the placement annotation is absent",
        ),
    ];
    let nodes: [Row<'_>; 3] = [
        (
            &inventory,
            "Node",
            "plugin",
            "every GPU, at most 64: UUID, index, model, memory, NUMA node, links, health, isolation of its shares, and the \
             number of counted shares it is offered as (`offers`)",
        ),
        (
            &format!("{labels}<profiles>"),
            "Node",
            "plugin with `--labels=node`",
            "keys of the labels that the plugin wrote",
        ),
        (&cordon, "Node", "you", "UUIDs or indices, joined by commas, of GPUs that take no new pod"),
    ];
    let table = |rows: &[Row<'_>]| {
        let row = |(key, on, by, content): &Row<'_>| format!("| `{key}` | {on} | {by} | {content} |\n");
        format!(
            "| key | on | written by | content |\n| --- | --- | --- | --- |\n{}",
            rows.iter().map(row).collect::<String>()
        )
    };
    let taints: [Row<'_>; 1] = [(
        &starting,
        "Node",
        "kubelet (`--register-with-taints`); removed by the plugin",
        "the node starts: its GPUs cannot be used yet. See [autoscalers](../autoscalers.md#the-startup-taint)",
    )];
    format!(
        "{GENERATED}# Resources and annotations\n\nLook up what a resource name or annotation means and who writes it. \
         `{domain}` is the default of `--domain`; every key below starts with whatever that flag says.\n\n\
         ## Resources\n\n{}\nThe resources of the vendors' plugins: [vendors](../vendors/README.md).\n\n\
         ## Annotations that you write on a pod\n\nTheir values: [pods](../pods.md#annotations).\n\n{}\n\
         ## Records that kerf writes on a pod\n\n{}\n\
         ## Annotations of a Node\n\n{}\n\
         Where a Node has no inventory, its GPUs are inferred from its capacity, unless kerf's plugin has served the node \
         before: then the node takes no new pod until the inventory is back.\n\n\
         ## Taints of a Node\n\n{}\n\
         ## Who may write them\n\nThe admission policies in `manifests/base` reserve the records for kerf and fix your \
         annotations on a pod once it is bound: a pod runs with what it was placed with. See \
         [rights](../install.md#rights).\n",
        table(&resources),
        table(&wanted),
        table(&records),
        table(&nodes),
        table(&taints),
    )
}

#[test]
fn the_reference_of_flags_is_what_the_programs_take() {
    same_or_written("docs/reference/flags.md", &flags());
}

#[test]
fn the_reference_of_metrics_is_what_the_programs_serve() {
    same_or_written("docs/reference/metrics.md", &metrics());
}

#[test]
fn the_reference_of_annotations_is_what_the_keys_are() {
    same_or_written("docs/reference/annotations.md", &annotations());
}

// === texts and names in the pages ===

#[test]
fn the_page_about_pods_knows_every_refusal_and_every_reason_to_wait() {
    let page = text("docs/pods.md");
    for reason in Unfit::ALL {
        let row = page.lines().find(|line| line.contains(&format!("`{}`", reason.reason())));
        let row = row.unwrap_or_else(|| panic!("docs/pods.md: no {:?}", reason.reason()));
        assert!(
            row.contains(&format!("`{}`", reason.as_str())),
            "docs/pods.md: {row} does not say {}",
            reason.as_str()
        );
    }
    let refused_with = |core: Option<&str>, memory: Option<&str>, annotations: RawAnnotations<'_>| {
        let main = RawContainer { name: "main", kind: ContainerKind::App, core, memory, counted: &[] };
        GpuRequest::parse([main], annotations).unwrap_err().to_string()
    };
    let refused = |core: Option<&str>, memory: Option<&str>, limit, policy| {
        refused_with(core, memory, RawAnnotations { limit, policy, ..RawAnnotations::default() })
    };
    let isolated = |isolation| RawAnnotations { isolation: Some(isolation), ..RawAnnotations::default() };
    let arranged = |arrangement| RawAnnotations { arrangement: Some(arrangement), ..RawAnnotations::default() };
    let refused_counting = |counted: &[(&str, &str)], annotations: RawAnnotations<'_>| {
        let main = RawContainer { name: "main", kind: ContainerKind::App, core: None, memory: None, counted };
        GpuRequest::parse([main], annotations).unwrap_err().to_string()
    };
    for text in [
        refused(Some("150"), Some("1"), None, None),
        refused(Some("50"), None, None, None),
        refused(None, Some("1"), None, None),
        refused(Some("-1"), None, None, None),
        refused(Some("0.5"), None, None, None),
        refused(Some("x"), None, None, None),
        refused(Some("1e30"), None, None, None),
        refused(Some("1e9"), None, None, None),
        refused(Some("50"), Some("1"), Some("x"), None),
        refused(Some("50"), Some("1"), Some("49"), None),
        refused(Some("100"), None, Some("100"), None),
        refused(Some("100"), None, None, Some("x")),
        refused_with(Some("50"), Some("1"), isolated("x")),
        refused_with(Some("50"), Some("1"), isolated("mig")),
        refused_with(Some("50"), Some("1"), arranged("same-card")),
        refused_counting(&[("a.b/x", "1"), ("a.b/y", "1")], RawAnnotations::default()),
        refused_counting(&[("a.b/x", "2M")], RawAnnotations::default()),
        refused_counting(&[("a.b/x", "1")], arranged("x")),
        refused_counting(&[("a.b/x", "1")], isolated("limiter")),
        RequestError::SameCardOfTwoResources.to_string(),
        RequestError::TooManyContainers.to_string(),
        RequestError::TooManyListed.to_string(),
        RequestError::TooManyLimits.to_string(),
        RequestError::TooManyUnknown.to_string(),
        RequestError::TooManyAnnotations.to_string(),
    ] {
        assert!(page.contains(&format!("`{text}`")), "docs/pods.md: no {text:?}");
    }
}

#[test]
fn every_metric_that_a_page_names_exists() {
    let mut known: BTreeSet<String> =
        descs().into_iter().flat_map(|(_, descs)| descs).map(|desc| desc.fq_name).collect();
    known.insert("kerf_extender_request_duration_seconds_bucket".to_owned());
    // what the rules record, without the labels and the sum
    let rules = text(ALERTS);
    let recorded = rules.lines().filter_map(|line| line.trim().strip_prefix("- record: "));
    known.extend(recorded.filter_map(|name| Some(name.split(':').nth(1)?.to_owned())));
    let mut named = BTreeSet::new();
    let boards = ["cluster", "node", "namespace"];
    let boards = boards.map(|board| format!("manifests/components/dashboards/{board}.json"));
    for page in pages().into_iter().chain([ALERTS.to_owned()]).chain(boards) {
        let text = text(&page);
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|word| word.starts_with("kerf_") && word.matches('_').count() > 1) {
            assert!(known.contains(word), "{page}: {word}");
            named.insert(word.to_owned());
        }
    }
    assert!(named.len() > 30, "{} metrics are named", named.len());
}

/// Flags of the programs whose commands are not rendered: the `kerf` command and the demo.
const OTHER_FLAGS: [&str; 39] = [
    // release.sh's
    "architectures",
    "below",
    "by",
    "context",
    "demand",
    "departures",
    "file",
    "format",
    "group",
    "instance-type",
    "interval",
    "json",
    "kerf-namespace",
    "load",
    "log",
    "namespace",
    // helm's
    "kube-version",
    "no-hooks",
    "reset-then-reuse-values",
    "reuse-values",
    "node",
    "nodes",
    "once",
    "plot",
    "pods",
    "prometheus",
    // kubelet's
    "register-with-taints",
    "root-dir",
    "request-timeout",
    "seeds",
    "since",
    // Cluster Autoscaler's
    "startup-taint",
    "stays",
    "token-file",
    "trace",
    // helm's
    "wait",
    "underused",
    "warm-up",
    "without",
];

#[test]
fn every_flag_that_a_page_names_exists() {
    let commands = [
        kerf_extender::config::Args::command(),
        kerf_plugin::config::Args::command(),
        kerf_plugin::prune::Args::command(),
    ];
    let longs = commands.iter().flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_long);
    let known: BTreeSet<&str> = longs.chain(OTHER_FLAGS).collect();
    // the changelog also names flags that were removed
    for page in pages().iter().filter(|page| *page != "CHANGELOG.md") {
        let text = text(page);
        // text in backticks that begins with a flag
        let code = prose(&text).flat_map(|line| line.split('`').skip(1).step_by(2));
        for flag in code.filter_map(|code| code.strip_prefix("--")) {
            let name = flag.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))).next().unwrap();
            assert!(known.contains(name), "{page}: --{name}");
        }
    }
}

// === links ===

/// Lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(text).filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let letters = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = letters.map(|c| if c == ' ' { '-' } else { c }).collect();
        let mut free = anchor.clone();
        for at in 1.. {
            if anchors.insert(free) {
                break;
            }
            free = format!("{anchor}-{at}");
        }
    }
    anchors
}

/// Targets of the links of a page.
fn links(text: &str) -> Vec<String> {
    let ends = |rest: &str| rest.split_once(')').map(|(target, _)| target.split(' ').next().unwrap().to_owned());
    prose(text).flat_map(|line| line.split("](").skip(1).filter_map(ends).collect::<Vec<_>>()).collect()
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut followed = 0;
    for page in pages() {
        for link in links(&text(&page)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((&*link, None), |(path, anchor)| (path, Some(anchor)));
            let target = match path {
                "" => root().join(&page),
                path => root().join(&page).parent().unwrap().join(path),
            };
            assert!(target.exists(), "{page}: {link} leads nowhere");
            if let Some(anchor) = anchor.filter(|_| target.extension().is_some_and(|extension| extension == "md")) {
                let headings = anchors(&std::fs::read_to_string(&target).unwrap());
                assert!(headings.contains(anchor), "{page}: {link}: no such heading; there are {headings:?}");
            }
            followed += 1;
        }
    }
    assert!(followed > 100, "{followed} links");
}

#[test]
fn the_index_names_every_page_and_the_readme_stays_short() {
    let index = links(&text("docs/README.md"));
    for page in pages().iter().filter_map(|page| page.strip_prefix("docs/")).filter(|page| *page != "README.md") {
        assert!(index.iter().any(|link| link == page), "docs/README.md: no link to {page}");
    }
    let lines = text("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines");
}

#[test]
fn the_page_about_monitoring_says_what_to_do_about_each_alert() {
    let page = text("docs/monitoring.md");
    let rules = text(ALERTS);
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 5, "{alerts:?}");
    for alert in alerts {
        assert!(page.contains(&format!("| `{alert}` | ")), "{alert}");
    }
}
