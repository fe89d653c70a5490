//! The values: each is described, known to the schema, and reaches the objects.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::render::{Release, folder, object, tools};
use crate::command_line;
use crate::reading::text;

fn defaults() -> Value {
    serde_saphyr::from_str(&text("charts/kerf/values.yaml")).unwrap()
}

#[test]
fn the_charts_version_is_the_projects() {
    let chart: Value = serde_saphyr::from_str(&text("charts/kerf/Chart.yaml")).unwrap();
    assert_eq!(
        (&chart["version"], &chart["appVersion"]),
        (&env!("CARGO_PKG_VERSION").into(), &env!("CARGO_PKG_VERSION").into())
    );
}

/// Every value of the file, and every property of the schema, by its path. A schema that knows no names ends a path.
fn paths(at: &str, schema: &Value, definitions: &Value, values: &Value, found: &mut [BTreeSet<String>; 2]) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => &definitions[reference.strip_prefix("#/$defs/").unwrap()],
        None => schema,
    };
    let Some(properties) =
        schema["properties"].as_object().filter(|_| values.as_object().is_some_and(|own| !own.is_empty()))
    else {
        return;
    };
    // the values of all charts together are the exception
    assert!(schema["additionalProperties"] == false || at == ".global", "{at}: takes names that it does not know");
    found[0].extend(properties.keys().map(|key| format!("{at}.{key}")));
    found[1].extend(values.as_object().unwrap().keys().map(|key| format!("{at}.{key}")));
    for (key, own) in properties {
        paths(&format!("{at}.{key}"), own, definitions, &values[key], found);
    }
}

#[test]
fn the_schema_knows_the_values_and_no_others() {
    let schema: Value = serde_json::from_str(&text("charts/kerf/values.schema.json")).unwrap();
    let mut found = [BTreeSet::new(), BTreeSet::new()];
    paths("", &schema, &schema["$defs"], &defaults(), &mut found);
    let [known, given] = found;
    assert_eq!(known, given);
    assert!(known.len() > 100, "{}", known.len());
}

fn pod<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    &object(objects, kind, name)["spec"]["template"]
}

/// Of each program: its section of the values, and where its pods and its container are.
const PROGRAMS: [(&str, &str, &str, &str, &str); 3] = [
    ("scheduler", "scheduler", "Deployment", "kerf-scheduler", "/spec/containers/0"),
    ("remote", "extender", "Deployment", "kerf-extender", "/spec/containers/0"),
    ("plugin", "plugin", "DaemonSet", "kerf-plugin", "/spec/containers/0"),
];

#[test]
fn values_of_pods_and_containers_reach_them() {
    let Some(tools) = tools() else { return };
    let folder = folder("pods");
    let release = Release::new(&tools, "helm4", &folder);
    for (pods, section, kind, name, at) in PROGRAMS {
        let placement = if pods == "remote" { "remote" } else { "scheduler" };
        let affinity = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [] } });
        let mut values = json!({
            "placement": placement,
            "global": { "imageRegistry": "mirror.example.com", "imagePullSecrets": [{ "name": "mine" }] },
            pods: {
                "podAnnotations": { "example.com/a": "b", "prometheus.io/scrape": "false" },
                "podLabels": { "example.com/team": "c", "app.kubernetes.io/name": "not-this" },
                "nodeSelector": { "pool": "gpus" },
                "tolerations": [{ "key": "own", "operator": "Exists" }],
                "affinity": affinity,
                "priorityClassName": "",
            },
        });
        let digest = format!("sha256:{}", "0".repeat(64));
        let own = json!({
            "image": { "repository": "own/image", "digest": digest, "pullPolicy": "Always" },
            "extraEnv": [{ "name": "OWN", "value": "1" }, { "name": "KERF_DOMAIN", "value": "example.org" }],
            "resources": { "requests": { "cpu": 1 }, "limits": { "memory": "1Gi" } },
        });
        if values[section].is_null() {
            values[section] = json!({});
        }
        values[section].as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let objects = release.objects(&values.to_string());
        let before = release.objects(&json!({ "placement": placement }).to_string());
        let (now, before) = (pod(&objects, kind, name), pod(&before, kind, name));
        assert_eq!(now["metadata"]["annotations"]["example.com/a"], "b");
        assert_eq!(now["metadata"]["annotations"]["prometheus.io/scrape"], "false");
        assert_eq!(now["metadata"]["labels"]["example.com/team"], "c");
        assert_eq!(now["metadata"]["labels"]["app.kubernetes.io/name"], name, "selectors match it");
        let spec = &now["spec"];
        assert_eq!(spec["imagePullSecrets"], json!([{ "name": "mine" }]));
        assert_eq!(spec["nodeSelector"]["pool"], "gpus");
        let tolerations = spec["tolerations"].as_array().unwrap();
        assert!(tolerations.starts_with(before["spec"]["tolerations"].as_array().unwrap()));
        assert_eq!(tolerations.last().unwrap()["key"], "own");
        assert_eq!(spec["affinity"], affinity);
        assert!(spec.get("priorityClassName").is_none() && before["spec"]["priorityClassName"].is_string());
        let container = now.pointer(at).unwrap();
        assert_eq!(container["image"], format!("mirror.example.com/own/image@{digest}"));
        assert_eq!(container["imagePullPolicy"], "Always");
        let defaults = &defaults()[section]["resources"]["requests"]["memory"];
        let requests = json!({ "cpu": 1, "memory": defaults });
        assert_eq!(container["resources"], json!({ "requests": requests, "limits": { "memory": "1Gi" } }));
        let environment = container["env"].as_array().unwrap();
        let of = |name: &str| environment.iter().filter(|own| own["name"] == name).collect::<Vec<_>>();
        assert_eq!(of("OWN"), [&json!({ "name": "OWN", "value": "1" })]);
        assert_eq!(of("KERF_DOMAIN"), [&json!({ "name": "KERF_DOMAIN", "value": "example.org" })]);
    }
}

#[test]
fn the_extender_beside_the_scheduler_has_the_same_values() {
    let Some(tools) = tools() else { return };
    let folder = folder("sidecar");
    let release = Release::new(&tools, "helm4", &folder);
    let values =
        "{extender: {image: {registry: example.com, tag: v9}, extraArgs: [--policy=spread, --candidates=0],
        resources: {limits: {memory: 1Gi}}}}";
    let objects = release.objects(values);
    let container = &pod(&objects, "Deployment", "kerf-scheduler")["spec"]["initContainers"][0];
    assert_eq!(container["image"], "example.com/kerf-extender:v9");
    assert_eq!(container["resources"]["limits"]["memory"], "1Gi");
    assert_eq!(container["resources"]["requests"], defaults()["extender"]["resources"]["requests"]);
    let args = crate::parsed(&serde_json::from_value(container.clone()).unwrap());
    assert_eq!((args.policy.to_string(), args.candidates), ("spread".to_owned(), 0));
}

/// A flag that the manifests have as well is there once, however many dashes it has.
#[test]
fn flags_take_the_place_of_the_manifests() {
    let Some(tools) = tools() else { return };
    let folder = folder("flags");
    let release = Release::new(&tools, "helm4", &folder);
    let values = "{plugin: {extraArgs: [--backend=nvidia, --extra-device=/dev/a, --extra-device=/dev/b]},
        profiles: {deepomatic: {enabled: true, extraArgs: [--gpu-duplication-factor=10, --host-path=/usr/lib]}}}";
    let objects = release.objects(values);
    let command = <kerf_plugin::config::Args as clap::CommandFactory>::command();
    let arguments = |name: &str| {
        let container = &pod(&objects, "DaemonSet", name)["spec"]["containers"][0];
        let line = command_line("kerf-plugin", &serde_json::from_value(container.clone()).unwrap(), &command);
        let line = kerf_plugin::two_dashes(line.into_iter().map(Into::into));
        let args = <kerf_plugin::config::Args as clap::Parser>::try_parse_from(line).unwrap();
        kerf_plugin::config::Config::try_from(args).unwrap();
        container["args"].as_array().unwrap().iter().map(|own| own.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let plugin = arguments("kerf-plugin");
    assert!(
        plugin.ends_with(&["--backend=nvidia", "--extra-device=/dev/a", "--extra-device=/dev/b"].map(String::from))
    );
    assert_eq!(plugin.iter().filter(|own| own.contains("backend")).count(), 1);
    let deepomatic = arguments("kerf-deepomatic");
    assert_eq!(
        deepomatic.iter().filter(|own| own.contains("host-path")).collect::<Vec<_>>(),
        ["--host-path=/usr/lib"]
    );
    assert_eq!(deepomatic.iter().filter(|own| own.contains("factor")).count(), 1);
}

#[test]
fn placed_resources_are_known_to_scheduler_and_policies() {
    let Some(tools) = tools() else { return };
    let folder = folder("placed");
    let release = Release::new(&tools, "helm4", &folder);
    let values = "{placedResources: [nvidia.com/gpu, amd.com/cpx_nps4], scheduler: {configuration: {percentageOfNodesToScore: 20,
        leaderElection: {leaseDuration: 20s}}}}";
    let objects = release.objects(values);
    let map = object(&objects, "ConfigMap", "kerf-scheduler-configuration");
    let text = map["data"]["kube-scheduler-configuration.yaml"].as_str().unwrap();
    let configuration: crate::SchedulerConfiguration = serde_saphyr::from_str(text).unwrap();
    let managed = &configuration.extenders[0].managed_resources;
    let managed: Vec<(&str, bool)> = managed.iter().map(|own| (&*own.name, own.ignored_by_scheduler)).collect();
    let names = ["inspur.com/vcuda-core", "inspur.com/vcuda-memory", "nvidia.com/gpu", "amd.com/cpx_nps4"];
    assert_eq!(managed, names.map(|name| (name, false)));
    assert_eq!(configuration.percentage_of_nodes_to_score, Some(20));
    let lease = &configuration.leader_election;
    assert_eq!((&lease["leaseDuration"], &lease["renewDeadline"]), (&"20s".into(), &"6s".into()));
    let mut policies = 0;
    for policy in objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("AdmissionPolicy")) {
        for variable in policy["spec"]["variables"].as_array().into_iter().flatten() {
            if variable["name"] == "counted" {
                assert_eq!(variable["expression"], "['nvidia.com/gpu', 'amd.com/cpx_nps4']");
                policies += 1;
            }
        }
    }
    assert_eq!(policies, 4);
    // the pods start anew with another configuration
    let checksum = |objects: &[Value]| {
        let template = pod(objects, "Deployment", "kerf-scheduler");
        template["metadata"]["annotations"]["checksum/configuration"].as_str().unwrap().to_owned()
    };
    assert_ne!(checksum(&objects), checksum(&release.objects("{}")));
}

#[test]
fn the_remaining_values_reach_their_objects() {
    let Some(tools) = tools() else { return };
    let folder = folder("others");
    let release = Release::new(&tools, "helm4", &folder);
    let values = "{scheduler: {replicas: 3}, routing: {refuse: false, reservedNodes: true}, requests: allow,
        plugin: {runtimeClassName: gpu, nodeSelector: {nvidia-device-enable: null, pool: gpus}},
        simulated: {enabled: true, gpus: '[[gpu]]'}, podMonitor: {enabled: true, labels: {release: p}, interval: 30s},
        rules: {enabled: true, labels: {release: q}},
        profiles: {podLabels: {team: a}, priorityClassName: low, resources: {limits: {memory: 1Gi}},
        deepomatic: {enabled: true, nodeSelector: {pool: shared}, tolerations: [{operator: Exists}]}}}";
    let objects = release.objects(values);
    assert_eq!(object(&objects, "Deployment", "kerf-scheduler")["spec"]["replicas"], 3);
    let policies: BTreeSet<&str> = objects
        .iter()
        .filter(|object| object["kind"] == "ValidatingAdmissionPolicy")
        .map(|object| object["metadata"]["name"].as_str().unwrap())
        .collect();
    // those that guard the records are always there
    let guards = [
        "kerf-bindings",
        "kerf-extender-waiting-pods",
        "kerf-placement-records",
        "kerf-plugin-events",
        "kerf-plugin-own-node",
        "kerf-pods",
    ];
    assert_eq!(policies, guards.into());
    let plugin = &pod(&objects, "DaemonSet", "kerf-plugin")["spec"];
    assert_eq!((&plugin["runtimeClassName"], &plugin["nodeSelector"]), (&"gpu".into(), &json!({ "pool": "gpus" })));
    let reserved = object(&objects, "MutatingAdmissionPolicy", "kerf-reserved-nodes");
    let selector = &reserved["spec"]["matchConstraints"]["objectSelector"]["matchLabels"];
    assert_eq!(*selector, plugin["nodeSelector"]);
    assert_eq!(object(&objects, "ConfigMap", "kerf-simulated-gpus")["data"]["gpus.toml"], "[[gpu]]");
    let monitor = object(&objects, "PodMonitor", "kerf-plugin");
    assert_eq!(monitor["metadata"]["labels"]["release"], "p");
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["interval"], "30s");
    assert_eq!(object(&objects, "PrometheusRule", "kerf-alerts")["metadata"]["labels"]["release"], "q");
    let profile = pod(&objects, "DaemonSet", "kerf-deepomatic");
    assert_eq!(profile["metadata"]["labels"]["team"], "a");
    assert_eq!(profile["spec"]["priorityClassName"], "low");
    assert_eq!(profile["spec"]["containers"][0]["resources"]["limits"]["memory"], "1Gi");
    let nodes = json!({ "kubernetes.io/os": "linux", "deepomatic.com/shared-gpu": "true", "pool": "shared" });
    assert_eq!(profile["spec"]["nodeSelector"], nodes);
    // who may place pods
    let peers = json!([{ "ipBlock": { "cidr": "192.0.2.10/32" } }]);
    let remote = release.objects(&json!({ "placement": "remote", "remote": { "from": peers } }).to_string());
    let policy = object(&remote, "NetworkPolicy", "kerf-extender");
    assert_eq!(policy["spec"]["ingress"][0]["from"], peers);
    assert!(policy["spec"]["ingress"][1].get("from").is_none(), "metrics");
}

/// Where the cluster chooses users, pods that can be anybody name none; and what the values say of hosts reaches the pods.
#[test]
fn values_of_hosts_reach_the_pods() {
    let Some(tools) = tools() else { return };
    let folder = folder("hosts");
    let release = Release::new(&tools, "helm4", &folder);
    let values = "{openshift: true, nodeLabels: nfd, nfdFeaturesDir: /var/own, plugin: {seLinuxType: super_t},
        kubeletDir: /var/lib/k0s/kubelet,
        profiles: {seLinuxType: '', account: {enabled: true}, amd: {enabled: true}, intel: {enabled: true, placed: true}},
        prune: {nodeSelector: {pool: any}, tolerations: [{key: own}]}, global: {imagePullSecrets: [{name: mine}]}}";
    let objects = release.objects(values);
    let plugin = &pod(&objects, "DaemonSet", "kerf-plugin")["spec"];
    assert_eq!(plugin["securityContext"]["seLinuxOptions"]["type"], "super_t");
    let amd = &pod(&objects, "DaemonSet", "kerf-amd")["spec"];
    assert!(amd["securityContext"].get("seLinuxOptions").is_none());
    for spec in [plugin, amd] {
        let features = spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "features");
        assert_eq!(features.unwrap()["hostPath"]["path"], "/var/own");
    }
    // kubelet makes its directory for device plugins at one place, wherever its own is
    for spec in [plugin, &pod(&objects, "DaemonSet", "kerf-intel")["spec"]] {
        let host = |name: &str| {
            let found = spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == name).unwrap();
            found["hostPath"]["path"].clone()
        };
        assert_eq!(host("pod-resources"), "/var/lib/k0s/kubelet/pod-resources");
        assert_eq!(host("device-plugins"), "/var/lib/kubelet/device-plugins");
    }
    let prune = &pod(&objects, "Job", "kerf-prune")["spec"];
    assert_eq!(prune["nodeSelector"], json!({ "kubernetes.io/os": "linux", "pool": "any" }));
    assert_eq!(prune["tolerations"].as_array().unwrap().last().unwrap()["key"], "own");
    assert_eq!(prune["imagePullSecrets"], json!([{ "name": "mine" }]));
    for context in [&prune["securityContext"], &object(&objects, "Pod", "kerf-test")["spec"]["securityContext"]] {
        assert_eq!(context["runAsNonRoot"], true);
        assert!(context.get("runAsUser").is_none() && context.get("runAsGroup").is_none(), "{context}");
    }
}

/// A value without which the templates could not go on is asked for by name where it is missing.
#[test]
fn values_that_say_something_are_required() {
    let schema: Value = serde_json::from_str(&text("charts/kerf/values.schema.json")).unwrap();
    let values = defaults();
    let all = values.as_object().unwrap().iter();
    let says = all.filter(|(_, value)| !["\"\"", "[]", "false"].contains(&&*value.to_string()));
    let wanted: BTreeSet<&str> = says.map(|(key, _)| &**key).collect();
    let required = schema["required"].as_array().unwrap().iter();
    assert_eq!(required.map(|name| name.as_str().unwrap()).collect::<BTreeSet<_>>(), wanted);
}

/// The hook of `helm test` asks for what kerf gives, and may do nothing else.
#[test]
fn the_test_of_a_release_asks_for_a_share() {
    let Some(tools) = tools() else { return };
    let folder = folder("hook");
    let release = Release::new(&tools, "helm4", &folder);
    for (values, domain, scheduler) in [
        ("{}", "inspur.com", Some("kerf-scheduler")),
        ("{placement: remote, domain: example.org}", "example.org", None),
    ] {
        let objects = release.objects(values);
        let hook = object(&objects, "Pod", "kerf-test");
        crate::known(values, hook);
        assert_eq!(hook["metadata"]["annotations"]["helm.sh/hook"], "test");
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(hook.clone()).unwrap();
        let keys = kerf::annotation::Keys::new(domain.parse().unwrap());
        assert!(kerf::k8s::request(&pod, &keys).unwrap().is_some());
        let spec = pod.spec.unwrap();
        assert_eq!(spec.scheduler_name.as_deref(), scheduler);
        assert_eq!(spec.automount_service_account_token, Some(false));
        let set = object(&objects, "DaemonSet", "kerf-plugin");
        assert_eq!(
            hook["spec"]["containers"][0]["image"],
            set["spec"]["template"]["spec"]["containers"][0]["image"]
        );
    }
    let objects = release.objects("{placement: none, profiles: {amd: {enabled: true}}}");
    assert!(objects.iter().all(|object| object["kind"] != "Pod"));
}
