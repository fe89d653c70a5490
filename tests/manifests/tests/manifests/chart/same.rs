//! The chart with values is the kustomization with overlays and components, object by object.

use serde_json::Value;

use super::render::{HELMS, Release, by_name, folder, kustomized, tools};
use crate::known;

/// Labels that helm's convention adds to every object; none is in a selector.
const HELM_LABELS: [&str; 3] = ["helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version"];
/// The same, but objects of profiles have one of their own.
const INSTANCE: &str = "app.kubernetes.io/instance";
/// In the place of the hash that kustomize appends to the configuration's name: it changes the pods with it.
const CHECKSUM: &str = "checksum/configuration";
/// The ConfigMap's name without the hash.
const CONFIGURATION: &str = "kerf-scheduler-configuration";

/// Values, and the kustomizations that say the same: resources and components of each.
type Case<'a> = (&'a str, &'a [(&'a [&'a str], &'a [&'a str])]);

const BASE: &[&str] = &["base"];

const CASES: &[Case<'_>] = &[
    ("{}", &[(BASE, &[])]),
    ("{domain: tencent.com}", &[(&["overlays/tencent"], &[])]),
    ("{plugin: {runtimeClassName: nvidia}}", &[(&["overlays/nvidia-runtime"], &[])]),
    ("{plugin: {driverLimits: true}}", &[(&["overlays/driver-limits"], &[])]),
    ("{simulated: {enabled: true}}", &[(&["overlays/simulated"], &[])]),
    ("{placement: remote}", &[(BASE, &["components/remote"])]),
    ("{placement: remote, remote: {legacy: true}}", &[(&["overlays/legacy"], &[])]),
    (
        "{placement: remote, remote: {tls: {secretName: kerf-extender-tls}}}",
        &[(BASE, &["components/remote", "components/remote-tls"])],
    ),
    ("{placement: controlPlane}", &[(BASE, &["components/control-plane"])]),
    ("{placement: remote, domain: tencent.com}", &[(&["overlays/tencent"], &["components/remote"])]),
    ("{routing: {mutate: never}}", &[(BASE, &["components/without-mutation"])]),
    ("{routing: {runtimeClassName: nvidia}}", &[(BASE, &["components/runtime-class"])]),
    ("{routing: {reservedNodes: true}}", &[(BASE, &["components/reserved-nodes"])]),
    ("{requests: warn}", &[(BASE, &["components/warn-requests"])]),
    ("{nodeLabels: node}", &[(BASE, &["components/node-labels"])]),
    ("{nodeLabels: nfd}", &[(BASE, &["components/nfd-labels"])]),
    ("{startupTaint: true}", &[(BASE, &["components/startup-taint"])]),
    ("{viewer: true}", &[(BASE, &["components/viewer"])]),
    ("{priorityQuota: true}", &[(BASE, &["components/priority-quota"])]),
    ("{nvidiaHardened: true}", &[(BASE, &["components/nvidia-hardened"])]),
    ("{openshift: true}", &[(BASE, &["components/openshift"])]),
    (
        "{nodeLabels: nfd, nfdFeaturesDir: /var/lib/node-feature-discovery/features.d}",
        &[(BASE, &["components/nfd-labels", "components/nfd-var"])],
    ),
    ("{podMonitor: {enabled: true}}", &[(BASE, &["components/pod-monitors"])]),
    ("{rules: {enabled: true}}", &[(BASE, &["components/alerts"])]),
    ("{dashboards: {enabled: true}}", &[(BASE, &["components/dashboards"])]),
    (
        "{domain: tencent.com, routing: {runtimeClassName: nvidia, reservedNodes: true}, requests: warn, nodeLabels: node,
        simulated: {enabled: false}, podMonitor: {enabled: true}, rules: {enabled: true}}",
        &[(
            &["overlays/tencent"],
            &[
                "components/runtime-class",
                "components/reserved-nodes",
                "components/warn-requests",
                "components/node-labels",
                "components/pod-monitors",
                "components/alerts",
            ],
        )],
    ),
    (
        "{placement: remote, nodeLabels: nfd, simulated: {enabled: true}, openshift: true}",
        &[(&["overlays/simulated"], &["components/nfd-labels", "components/openshift", "components/remote"])],
    ),
    (
        "{placement: none, profiles: {intel: {enabled: true, nodeFeatureDiscovery: true}}}",
        &[(&["overlays/nfd_labeled_nodes"], &[])],
    ),
    (
        "{placement: none, profiles: {amd: {enabled: true}, intel: {enabled: true}, nvidia: {enabled: true}, deepomatic: {enabled: true}}}",
        &[
            (&["overlays/amd"], &[]),
            (&["overlays/intel"], &[]),
            (&["overlays/nvidia"], &[]),
            (&["overlays/deepomatic"], &[]),
        ],
    ),
];

/// Of each profile: values below `profiles` and beside it, resources and components beside the overlay.
const OF_PROFILES: &[(&str, &str, &[&str])] = &[
    ("placement: none", "", &[]),
    ("placement: none", "account: {enabled: true}", &["components/profile-account"]),
    ("placement: none, nodeLabels: nfd", "", &["components/nfd-labels"]),
    (
        "placement: none, nodeLabels: node",
        "account: {enabled: true}",
        &["components/profile-account", "components/node-labels"],
    ),
    ("placement: none, nvidiaHardened: true", "", &["components/nvidia-hardened"]),
    (
        "placement: none, openshift: true",
        "account: {enabled: true}",
        &["components/profile-account", "components/openshift"],
    ),
    (
        "placement: none, nodeLabels: nfd, nfdFeaturesDir: /var/lib/node-feature-discovery/features.d",
        "",
        &["components/nfd-labels", "components/nfd-var"],
    ),
    (
        "placement: none, priorityQuota: true, podMonitor: {enabled: true}",
        "",
        &["components/priority-quota", "components/pod-monitors"],
    ),
];

/// As what both renderers say the same: without what is named above, and without the namespace, which is the release's.
fn plain(mut object: Value, configuration: &str) -> Option<Value> {
    if object["kind"] == "Namespace" {
        return None;
    }
    if let Some(labels) = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.retain(|key, value| {
            !HELM_LABELS.contains(&key.as_str()) && (key != INSTANCE || value.as_str() != Some("kerf"))
        });
        if labels.is_empty() {
            object["metadata"].as_object_mut().unwrap().remove("labels");
        }
    }
    if let Some(annotations) = object.pointer_mut("/spec/template/metadata/annotations") {
        annotations.as_object_mut().unwrap().remove(CHECKSUM);
    }
    // their order says nothing, and a patch by name changes it
    if let Some(volumes) = object.pointer_mut("/spec/template/spec/volumes").and_then(Value::as_array_mut) {
        volumes.sort_by_key(|volume| volume["name"].to_string());
    }
    // what the text says: the comments in it are not in the chart's
    if let Some(data) = object.get_mut("data").and_then(Value::as_object_mut) {
        for (_, file) in data.iter_mut().filter(|(name, _)| name.ends_with(".yaml")) {
            *file = serde_saphyr::from_str(file.as_str().unwrap()).unwrap();
        }
    }
    let text = object.to_string().replace(&format!("\"{configuration}\""), &format!("\"{CONFIGURATION}\""));
    Some(serde_json::from_str(&text).unwrap())
}

/// The name of kube-scheduler's configuration.
fn configuration(objects: &[Value]) -> String {
    let mut maps = objects.iter().filter(|object| object["kind"] == "ConfigMap");
    let own = maps.find(|map| map["data"].get("kube-scheduler-configuration.yaml").is_some());
    own.map_or(CONFIGURATION, |map| map["metadata"]["name"].as_str().unwrap()).to_owned()
}

fn all_plain(objects: Vec<Value>) -> Vec<Value> {
    let configuration = configuration(&objects);
    objects.into_iter().filter_map(|object| plain(object, &configuration)).collect()
}

fn is_hook(object: &Value) -> bool {
    object["metadata"]["annotations"].get("helm.sh/hook").is_some()
}

/// Where two values differ first.
fn difference(at: &str, chart: &Value, kustomize: &Value) -> Option<String> {
    match (chart, kustomize) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            keys.into_iter().find_map(|key| match (one.get(key), other.get(key)) {
                (Some(one), Some(other)) => difference(&format!("{at}.{key}"), one, other),
                (one, other) => Some(format!("{at}.{key}: the chart has {one:?}, kustomize {other:?}")),
            })
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let mut pairs = one.iter().zip(other).enumerate();
            pairs.find_map(|(index, (one, other))| difference(&format!("{at}[{index}]"), one, other))
        }
        (one, other) => (one != other).then(|| format!("{at}: the chart has {one}\nkustomize has {other}")),
    }
}

fn compare(release: &Release<'_>, values: &str, kustomizations: &[(&[&str], &[&str])]) {
    let mut expected = Vec::new();
    for (resources, components) in kustomizations {
        expected.extend(all_plain(kustomized(release.tools, release.folder, resources, components)));
    }
    let mut rendered = release.objects(values);
    rendered.retain(|object| !is_hook(object));
    for object in &rendered {
        known(values, object);
        for label in HELM_LABELS.iter().chain([&INSTANCE]) {
            assert!(object["metadata"]["labels"].get(label).is_some(), "{values}: {label}: {object}");
        }
    }
    let (chart, kustomize) = (by_name(all_plain(rendered)), by_name(expected));
    let names = |objects: &std::collections::BTreeMap<_, _>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&chart), names(&kustomize), "{}: {values}", release.helm);
    for ((name, one), other) in chart.iter().zip(kustomize.values()) {
        let differs = difference("", one, other);
        assert!(differs.is_none(), "{}: {values}: {name:?}: {}", release.helm, differs.unwrap_or_default());
    }
}

#[test]
fn the_chart_renders_what_the_kustomizations_do() {
    let Some(tools) = tools() else { return };
    for helm in HELMS {
        let folder = folder(&format!("same-{helm}"));
        let release = Release::new(&tools, helm, &folder);
        for (values, kustomizations) in CASES {
            compare(&release, values, kustomizations);
        }
    }
}

#[test]
fn profiles_are_those_of_the_overlays() {
    let Some(tools) = tools() else { return };
    let folder = folder("profiles");
    for profile in ["amd", "intel", "nvidia", "deepomatic"] {
        let release = Release::new(&tools, "helm4", &folder);
        let overlay = format!("overlays/{profile}");
        for &(beside, below, components) in OF_PROFILES {
            let below = if below.is_empty() { String::new() } else { format!("{below}, ") };
            let values = format!("{{{beside}, profiles: {{{below}{profile}: {{enabled: true}}}}}}");
            compare(&release, &values, &[(&[&*overlay], components)]);
        }
        // under the plugin's account, beside the base
        let values = format!("{{profiles: {{{profile}: {{enabled: true, placed: true}}}}}}");
        compare(&release, &values, &[(BASE, &[]), (&[&*overlay], &["components/placed"])]);
    }
}

/// The hook that runs once the release is gone is the job of the kustomization.
#[test]
fn what_cleans_up_is_that_of_the_kustomization() {
    let Some(tools) = tools() else { return };
    for helm in HELMS {
        let folder = folder(&format!("prune-{helm}"));
        let release = Release::new(&tools, helm, &folder);
        let hooks = |values: &str| {
            let mut objects = release.objects(values);
            objects.retain(|object| object["metadata"]["annotations"]["helm.sh/hook"] == "post-delete");
            for object in &mut objects {
                let metadata = object["metadata"].as_object_mut().unwrap();
                let annotations = metadata.remove("annotations").unwrap();
                // after its account, which stays until it has run
                let weight = if object["kind"] == "Job" { "1" } else { "0" };
                assert_eq!(annotations["helm.sh/hook-weight"], weight);
                assert_eq!(annotations["helm.sh/hook-delete-policy"], "before-hook-creation,hook-succeeded");
            }
            objects
        };
        let mut expected = all_plain(kustomized(&tools, &folder, &["prune"], &[]));
        for object in &mut expected {
            object["metadata"].as_object_mut().unwrap().remove("labels");
        }
        assert_eq!(by_name(all_plain(hooks("{}"))), by_name(expected), "{helm}");
        assert!(hooks("{prune: {enabled: false}}").is_empty());
        // the taint is a part of a Node's spec, so only who has it gets the right
        let objects = hooks("{routing: {reservedNodes: true}}");
        let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap();
        let verbs = of("ClusterRole").pointer("/rules/0/verbs").unwrap();
        assert_eq!(*verbs, serde_json::json!(["list", "get", "patch"]));
        let container = of("Job").pointer("/spec/template/spec/containers/0").unwrap();
        assert_eq!(container["args"].as_array().unwrap().last().unwrap(), "--taint");
    }
}

/// A package has files in the place of the link to manifests/.
#[test]
fn a_package_renders_what_the_folder_does() {
    let Some(tools) = tools() else { return };
    for helm in HELMS {
        let folder = folder(&format!("package-{helm}"));
        let mut release = Release::new(&tools, helm, &folder);
        let of_folder = release.objects("{simulated: {enabled: true}}");
        let output = release.helm().arg("package").arg(&release.chart).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        release.chart = folder.join(format!("kerf-{}.tgz", env!("CARGO_PKG_VERSION")));
        assert_eq!(release.objects("{simulated: {enabled: true}}"), of_folder, "{helm}");
    }
}

#[test]
fn lint_has_no_complaint() {
    let Some(tools) = tools() else { return };
    for helm in HELMS {
        let folder = folder(&format!("lint-{helm}"));
        let release = Release::new(&tools, helm, &folder);
        let output = release.helm().args(["lint", "--strict"]).arg(&release.chart).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.contains("[WARNING]"), "{helm}: {said}");
    }
}
