//! Values and clusters that do not go are refused, and the message names what to change.

use super::render::{HELMS, Release, folder, tools};

/// Values, and parts of what is said of them.
const REFUSED: &[(&str, &[&str])] = &[
    // names and kinds of values: the schema
    ("{replicas: 2}", &["replicas", "not allowed"]),
    ("{scheduler: {replica: 2}}", &["/scheduler", "replica", "not allowed"]),
    ("{scheduler: {replicas: 0}}", &["/scheduler/replicas"]),
    ("{scheduler: {replicas: two}}", &["/scheduler/replicas", "want integer"]),
    ("{plugin: {image: {tags: v1}}}", &["/plugin/image", "tags"]),
    ("{plugin: {image: {digest: abc}}}", &["/plugin/image/digest"]),
    ("{plugin: {nodeSelector: {gpu: true}}}", &["/plugin/nodeSelector/gpu", "want string"]),
    ("{plugin: {tolerations: [{key: gpu, effects: NoSchedule}]}}", &["/plugin/tolerations/0", "effects"]),
    ("{plugin: {serviceAccount: {create: maybe}}}", &["/plugin/serviceAccount/create"]),
    ("{extender: {extraArgs: [spread]}}", &["/extender/extraArgs/0"]),
    ("{extender: {extraEnv: [{value: a}]}}", &["/extender/extraEnv/0", "name"]),
    ("{extender: {resources: {limit: {}}}}", &["/extender/resources", "limit"]),
    ("{domain: Example.org}", &["/domain"]),
    ("{placement: static}", &["/placement", "'scheduler', 'remote', 'controlPlane', 'none'"]),
    ("{placedResources: [gpu]}", &["/placedResources/0"]),
    ("{routing: {mutate: true}}", &["/routing/mutate", "'auto', 'always', 'never'"]),
    ("{requests: ignore}", &["/requests", "'deny', 'warn', 'allow'"]),
    ("{nodeLabels: clear}", &["/nodeLabels"]),
    ("{remote: {from: [{cidr: 192.0.2.10/32}]}}", &["/remote/from/0", "cidr"]),
    ("{profiles: {tpu: {enabled: true}}}", &["/profiles", "tpu"]),
    ("{profiles: {amd: {nodeFeatureDiscovery: true}}}", &["/profiles/amd", "nodeFeatureDiscovery"]),
    ("{plugin: {seLinuxType: a b}}", &["/plugin/seLinuxType"]),
    ("{profiles: {seLinuxType: 1}}", &["/profiles/seLinuxType", "want string"]),
    ("{nfdFeaturesDir: features.d}", &["/nfdFeaturesDir"]),
    ("{kubeletDir: /var/lib/k0s/kubelet/}", &["/kubeletDir"]),
    ("{prune: {image: {}}}", &["/prune", "image", "not allowed"]),
    ("{podMonitor: {interval: soon}}", &["/podMonitor/interval"]),
    ("{fullnameOverride: a-name-of-more-than-forty-characters-is-too-long}", &["/fullnameOverride"]),
    ("{global: {imagePullSecrets: [mine]}}", &["/global/imagePullSecrets/0"]),
    ("{global: {imageRegistry: 'https://registry.example.com'}}", &["/global/imageRegistry"]),
    ("{global: {imageRegistry: 'registry.example.com:5000/'}}", &["/global/imageRegistry"]),
    ("{plugin: {image: {repository: Kerf}}}", &["/plugin/image/repository"]),
    ("{plugin: {image: {tag: 'a b'}}}", &["/plugin/image/tag"]),
    ("{plugin: {extraArgs: ['--backend nvidia']}}", &["/plugin/extraArgs/0"]),
    ("{plugin: {nodeSelector: {'a b': c}}}", &["/plugin/nodeSelector", "a b"]),
    ("{plugin: {podLabels: {a: b c}}}", &["/plugin/podLabels/a"]),
    ("{rules: {enabled: true, labels: {a: b/c}}}", &["/rules/labels/a"]),
    // a default that was taken away: what stays is no release
    ("{plugin: null}", &["plugin"]),
    ("{global: null}", &["global"]),
    ("{domain: null}", &["domain"]),
    ("{placement: null}", &["placement"]),
    ("{requests: null}", &["requests"]),
    ("{routing: {mutate: null}}", &["/routing", "mutate"]),
    ("{routing: {refuse: null}}", &["/routing", "refuse"]),
    ("{scheduler: {replicas: null}}", &["/scheduler", "replicas"]),
    ("{plugin: {image: {repository: null}}}", &["/plugin/image", "repository"]),
    ("{plugin: {serviceAccount: {create: null}}}", &["/plugin/serviceAccount", "create"]),
    ("{placement: remote, remote: {tls: null}}", &["/remote", "tls"]),
    ("{profiles: {amd: null}}", &["/profiles", "amd"]),
    // an older chart's values, taken over as they are
    ("{kubeletDir: null, prune: null}", &["missing properties", "kubeletDir", "prune"]),
    // what goes together: the templates
    (
        "{plugin: {serviceAccount: {create: false}}}",
        &["plugin.serviceAccount.name", "plugin.serviceAccount.create to true"],
    ),
    (
        "{remote: {serviceAccount: {create: false}}}",
        &["remote.serviceAccount.name", "remote.serviceAccount.create to true"],
    ),
    (
        "{plugin: {serviceAccount: {name: one}}, scheduler: {serviceAccount: {name: one}}}",
        &["serviceAccount.name: two programs have the same account"],
    ),
    ("{routing: {mutate: never, reservedNodes: true}}", &["routing.reservedNodes", "routing.mutate=never"]),
    ("{routing: {mutate: never, runtimeClassName: nvidia}}", &["routing.runtimeClassName", "routing.mutate=never"]),
    (
        "{routing: {reservedNodes: true}, plugin: {nodeSelector: {nvidia-device-enable: null}}}",
        &["routing.reservedNodes", "plugin.nodeSelector is empty"],
    ),
    ("{remote: {legacy: true}}", &["remote.legacy", "placement remote"]),
    ("{remote: {tls: {secretName: tls}}}", &["remote.tls.secretName", "placement remote"]),
    ("{placement: remote, remote: {tls: {secretName: A_b}}}", &["/remote/tls/secretName"]),
    ("{placement: none}", &["placement: none", "no profile is enabled"]),
    ("{placedResources: [inspur.com/vcuda-core]}", &["placedResources: inspur.com/vcuda-core is kerf's own"]),
    (
        "{placement: none, placedResources: [amd.com/gpu], profiles: {amd: {enabled: true}}}",
        &["placedResources: placement is none"],
    ),
    (
        "{placement: none, profiles: {amd: {enabled: true, placed: true}}}",
        &["profiles.amd.placed: placement is none"],
    ),
    ("{nodeLabels: node, profiles: {nvidia: {enabled: true}}}", &["profiles.nvidia", "profiles.account.enabled"]),
    (
        "{openshift: true, profiles: {amd: {enabled: true}}}",
        &["openshift", "profiles.amd", "profiles.account.enabled"],
    ),
];

#[test]
fn values_that_do_not_go_are_refused_by_name() {
    let Some(tools) = tools() else { return };
    for helm in HELMS {
        let folder = folder(&format!("refusals-{helm}"));
        let release = Release::new(&tools, helm, &folder);
        for (values, parts) in REFUSED {
            let said = release.refusal(values);
            for part in *parts {
                assert!(said.contains(part), "{helm}: {values}: no {part:?} in: {said}");
            }
        }
    }
}

/// Lists and maps that are taken away are empty ones.
#[test]
fn lists_and_maps_may_be_null() {
    let Some(tools) = tools() else { return };
    for helm in HELMS {
        let folder = folder(&format!("null-{helm}"));
        let release = Release::new(&tools, helm, &folder);
        let nothing = |keys: &[&str]| keys.iter().map(|key| format!("{key}: null")).collect::<Vec<_>>().join(", ");
        let pods = nothing(&[
            "podAnnotations",
            "podLabels",
            "nodeSelector",
            "tolerations",
            "affinity",
            "priorityClassName",
        ]);
        let container = nothing(&["extraArgs", "extraEnv", "resources"]);
        let values = format!(
            "{{placedResources: null, nameOverride: null, fullnameOverride: null, global: {{imageRegistry: null, imagePullSecrets: null}},
              extender: {{{container}}}, scheduler: {{configuration: null, {container}, {pods}}}, plugin: {{{container}, {pods}}},
              remote: {{from: null, {pods}}}, prune: {{nodeSelector: null, tolerations: null}},
              rules: {{enabled: true, labels: null}}, podMonitor: {{enabled: true, labels: null, interval: null}},
              profiles: {{podLabels: null, podAnnotations: null, resources: null, amd: {{enabled: true, extraArgs: null, extraEnv: null,
              nodeSelector: null, tolerations: null, affinity: null}}}}}}"
        );
        let objects = release.objects(&values);
        for own in &objects {
            crate::known(&values, own);
        }
        let plugin = super::render::object(&objects, "DaemonSet", "kerf-plugin");
        let spec = &plugin["spec"]["template"]["spec"];
        assert!(spec.get("nodeSelector").is_none() && spec["containers"][0].get("resources").is_none(), "{spec}");
        release.objects(&values.replace("remote:", "placement: remote, remote:"));
    }
}

/// helm takes names for a release that Kubernetes does not take for each object.
#[test]
fn names_of_releases_make_names_of_objects() {
    let Some(tools) = tools() else { return };
    let folder = folder("release-names");
    let cases = [
        ("kerf.v2", "kerf-v2-"),
        ("a.b", "a-b-kerf-"),
        // the dot is where the name is cut off
        ("abcdefghij-abcdefghij-abcdefghij-abcdef.more-of-it", "abcdefghij-abcdefghij-abcdefghij-abcdef-"),
        ("9gpus", "9gpus-kerf-"),
    ];
    for (name, first) in cases {
        for values in ["{}", "{placement: remote}"] {
            let release = Release { name, ..Release::new(&tools, "helm4", &folder) };
            if name.starts_with('9') && values != "{}" {
                assert!(release.refusal(values).contains("fullnameOverride"), "{name}");
                continue;
            }
            let objects = release.objects(values);
            let service = objects.iter().filter(|object| object["kind"] == "Service");
            for object in objects.iter().filter(|object| object["kind"] == "DaemonSet").chain(service) {
                let own = object["metadata"]["name"].as_str().unwrap();
                let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                assert!(own.starts_with(first) && own.chars().all(legal) && own.len() <= 63, "{name}: {own}");
                assert!(!own.contains("--"), "{name}: {own}");
            }
        }
    }
}

/// Clouds write more after the version; Kubernetes before 1.36 has no policy that changes pods.
#[test]
fn clusters_are_taken_by_their_version() {
    let Some(tools) = tools() else { return };
    for helm in HELMS {
        let folder = folder(&format!("versions-{helm}"));
        let cases = [
            ("v1.34.0", false, "v1.34.0"),
            ("v1.34.2-eks-3025e55", false, "v1.34.2"),
            ("v1.35.1-gke.1200000", false, "v1.35.1"),
            ("v1.36.0-alpha.1", true, "v1.36.0"),
            ("v1.36.3+k3s1", true, "v1.36.3"),
            ("v1.37.2", true, "v1.37.2"),
        ];
        for (kubernetes, routes, image) in cases {
            let release = Release { kubernetes, ..Release::new(&tools, helm, &folder) };
            let objects = release.objects("{}");
            let routing = objects.iter().filter(|object| object["kind"] == "MutatingAdmissionPolicy").count();
            assert_eq!(routing, usize::from(routes), "{kubernetes}");
            // kube-scheduler is of the API server's version
            let deployment = super::render::object(&objects, "Deployment", "kerf-scheduler");
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(container["image"], format!("registry.k8s.io/kube-scheduler:{image}"));
        }
        for kubernetes in ["v1.33.9", "v1.33.9-eks-3025e55"] {
            let release = Release { kubernetes, ..Release::new(&tools, helm, &folder) };
            assert!(release.refusal("{}").contains("requires kubeVersion: >=1.34.0-0"), "{kubernetes}");
        }
    }
}
