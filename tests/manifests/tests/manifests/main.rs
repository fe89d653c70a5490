//! The manifests, images and examples agree with the code: every file parses strictly, every flag, port, route
//! and resource name exists, and no right is granted that is not listed here.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod boards;
mod bundled;
mod chart;
mod hosts;
mod kinds;
mod monitors;
mod reading;
mod rights;
mod scheduler;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Namespace, Pod, PodTemplateSpec, ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use kerf::annotation::Keys;
use kerf::device::{Device, Inventory};
use kerf::ids::PodRef;
use kerf::isolation::Isolation;
use kerf::k8s;
use kerf::ledger::NodeLedger;
use kerf::placement::Planner;
use kerf::policy::Policy;
use kerf::request::PodRequest;
use kerf::units::{Mib, Timestamp};
use kerf_plugin::LabelMode;
use kinds::{
    Alerts, Kustomization, Monitoring, Mutating, Operation, PodMonitor, SchedulerConfiguration, SecurityConstraints,
};
use reading::{documents, of_kind, only, root, strict, text, yaml_files};
use serde_json::Value;

// === the programs' objects ===

/// The extender that the cluster's own kube-scheduler calls.
fn extender() -> Deployment {
    only(of_kind("manifests/components/remote", "Deployment"))
}

fn plugin() -> DaemonSet {
    only(of_kind("manifests/base", "DaemonSet"))
}

fn templates() -> [(&'static str, PodTemplateSpec); 2] {
    [("kerf-extender", extender().spec.unwrap().template), ("kerf-plugin", plugin().spec.unwrap().template)]
}

fn container(template: &PodTemplateSpec) -> &Container {
    let containers = &template.spec.as_ref().unwrap().containers;
    assert_eq!(containers.len(), 1);
    &containers[0]
}

/// The flags of a container and, for each variable of its environment, the equivalent flag.
fn command_line(program: &str, container: &Container, command: &clap::Command) -> Vec<String> {
    let mut line = vec![program.to_owned()];
    line.extend(container.args.iter().flatten().cloned());
    for variable in container.env.iter().flatten().filter(|variable| variable.name.starts_with("KERF_")) {
        let flag = command.get_arguments().find(|argument| argument.get_env() == Some(variable.name.as_ref()));
        let flag = flag.unwrap_or_else(|| panic!("{program} reads no {}", variable.name)).get_long().unwrap();
        // a value that the node fills in
        let value = variable.value.clone().unwrap_or_else(|| "some-node".to_owned());
        line.push(format!("--{flag}={value}"));
    }
    line
}

fn extender_args(deployment: &Deployment) -> kerf_extender::config::Args {
    parsed(container(&deployment.spec.as_ref().unwrap().template))
}

fn parsed(extender: &Container) -> kerf_extender::config::Args {
    let command = kerf_extender::config::Args::command();
    kerf_extender::config::Args::try_parse_from(command_line("kerf-extender", extender, &command)).unwrap()
}

fn plugin_args(set: &DaemonSet) -> kerf_plugin::config::Args {
    let template = &set.spec.as_ref().unwrap().template;
    let command = kerf_plugin::config::Args::command();
    let line = command_line("kerf-plugin", container(template), &command);
    let line = kerf_plugin::two_dashes(line.into_iter().map(Into::into));
    kerf_plugin::config::Args::try_parse_from(line).unwrap()
}

// === every file ===

/// Reads an object as its kind, in which every field must be known, and returns the kind.
fn known<'a>(name: &str, value: &'a Value) -> &'a str {
    // the patch of a simulated node is a part of a DaemonSet, and parses as one
    let Some(kind) = value["kind"].as_str() else { panic!("{name}: no kind") };
    match kind {
        "ConfigMap" => drop(strict::<ConfigMap>(name, value)),
        "CSIStorageCapacity" => drop(strict::<CSIStorageCapacity>(name, value)),
        "ClusterRole" => drop(strict::<ClusterRole>(name, value)),
        "ClusterRoleBinding" => drop(strict::<ClusterRoleBinding>(name, value)),
        "DaemonSet" => drop(strict::<DaemonSet>(name, value)),
        "Deployment" => drop(strict::<Deployment>(name, value)),
        "FlowSchema" => drop(strict::<FlowSchema>(name, value)),
        "Job" => drop(strict::<Job>(name, value)),
        "KubeSchedulerConfiguration" => drop(strict::<SchedulerConfiguration>(name, value)),
        "Component" | "Kustomization" => drop(serde_json::from_value::<Kustomization>(value.clone()).unwrap()),
        "Namespace" => drop(strict::<Namespace>(name, value)),
        "MutatingAdmissionPolicy" | "MutatingAdmissionPolicyBinding" => drop(strict::<Mutating>(name, value)),
        "NetworkPolicy" => drop(strict::<NetworkPolicy>(name, value)),
        "PodDisruptionBudget" => drop(strict::<PodDisruptionBudget>(name, value)),
        "PriorityLevelConfiguration" => drop(strict::<PriorityLevelConfiguration>(name, value)),
        "PodMonitor" => drop(strict::<Monitoring<PodMonitor>>(name, value)),
        "PrometheusRule" => drop(strict::<Monitoring<Alerts>>(name, value)),
        "Pod" => drop(strict::<Pod>(name, value)),
        "ResourceQuota" => drop(strict::<ResourceQuota>(name, value)),
        "Role" => drop(strict::<Role>(name, value)),
        "RoleBinding" => drop(strict::<RoleBinding>(name, value)),
        "SecurityContextConstraints" => drop(strict::<SecurityConstraints>(name, value)),
        "Service" => drop(strict::<Service>(name, value)),
        "ServiceAccount" => drop(strict::<ServiceAccount>(name, value)),
        "ValidatingAdmissionPolicy" => drop(strict::<ValidatingAdmissionPolicy>(name, value)),
        "ValidatingAdmissionPolicyBinding" => drop(strict::<ValidatingAdmissionPolicyBinding>(name, value)),
        other => panic!("{name}: {other} is not expected here"),
    }
    kind
}

#[test]
fn every_document_holds_only_known_fields() {
    let mut seen = BTreeSet::new();
    for (name, value) in documents("manifests").into_iter().chain(documents("examples")) {
        let kind = known(&name, &value);
        let namespace = value["metadata"]["namespace"].as_str();
        // what the cluster keeps there is read
        let allowed = value["metadata"]["name"] == "kerf-scheduler-authentication" || kind == "Pod";
        let system = namespace == Some("kube-system") && allowed;
        assert!(system || namespace.is_none_or(|namespace| namespace == "kerf-system"), "{name}: {namespace:?}");
        if name.starts_with("manifests/base") && !["Kustomization", "KubeSchedulerConfiguration"].contains(&kind) {
            assert!(seen.insert((kind.to_owned(), value["metadata"]["name"].to_string())), "{name}: {kind} twice");
        }
    }
    assert_eq!(seen.len(), 39);
}

#[test]
fn kustomizations_name_files_that_exist_and_all_files() {
    let mut used = BTreeSet::new();
    let kustomized = |value: &Value| value["kind"] == "Kustomization" || value["kind"] == "Component";
    for (name, value) in documents("manifests").into_iter().filter(|(_, value)| kustomized(value)) {
        let kustomization: Kustomization = serde_json::from_value(value).unwrap();
        let directory = root().join(&name).parent().unwrap().to_owned();
        let patches = kustomization.patches.iter().filter_map(|patch| patch.path.as_ref());
        let files = kustomization.config_map_generator.iter().flat_map(|map| &map.files);
        let parts = kustomization.resources.iter().chain(&kustomization.components);
        for file in parts.chain(patches).chain(files) {
            let path =
                directory.join(file).canonicalize().unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
            let base = path.is_dir();
            assert!(!base || path.join("kustomization.yaml").is_file(), "{name}: {file}");
            used.insert(path);
        }
    }
    let mut files = Vec::new();
    yaml_files(&root().join("manifests"), &mut files);
    let config = root().join("manifests/scheduler-config");
    for file in files.iter().filter(|file| !file.ends_with("kustomization.yaml") && !file.starts_with(&config)) {
        assert!(used.contains(&file.canonicalize().unwrap()), "{} is in no kustomization", file.display());
    }
}

#[test]
fn the_tencent_overlay_replaces_every_mention_of_the_default_domain() {
    fn mentions(value: &Value) -> usize {
        match value {
            Value::String(text) => usize::from(text.contains("inspur.com")),
            Value::Array(values) => values.iter().map(mentions).sum(),
            Value::Object(values) => values.values().map(mentions).sum(),
            _ => 0,
        }
    }
    let mut base = documents("manifests/base");
    let configuration = "kube-scheduler-configuration.yaml";
    let of = |overlay: &str| text(&format!("manifests/{overlay}/{configuration}"));
    assert_eq!(of("base").replace("inspur.com", "tencent.com"), of("overlays/tencent"));
    base.retain(|(name, _)| !name.ends_with(configuration));
    let overlay = kustomization("overlays/tencent");
    assert_eq!(overlay.config_map_generator[0].behavior.as_deref(), Some("replace"));
    let mut replaced = 0;
    for patch in overlay.patches {
        let operations: Vec<Operation> = serde_saphyr::from_str(&patch.patch.unwrap()).unwrap();
        let target = patch.target.unwrap();
        let matches = |value: &Value| {
            value["kind"] == target["kind"]
                && target.get("name").is_none_or(|name| value["metadata"]["name"] == **name)
        };
        for (name, value) in base.iter().filter(|(_, value)| matches(value)) {
            for operation in &operations {
                assert_eq!(operation.op, "replace");
                let old = value.pointer(&operation.path).and_then(Value::as_str);
                let old = old.unwrap_or_else(|| panic!("{name}: nothing at {}", operation.path));
                assert_eq!(old.replace("inspur.com", "tencent.com"), operation.value);
                replaced += 1;
            }
        }
    }
    assert_eq!(replaced, base.iter().map(|(_, value)| mentions(value)).sum::<usize>());
    assert_eq!(replaced, 12);
}

// === the programs ===

#[test]
fn flags_and_environment_are_those_of_the_programs() {
    let args = extender_args(&extender());
    kerf_extender::config::Config::try_from(&args).unwrap();
    assert_eq!(args.domain, Keys::default().domain);
    let mut plugins: Vec<DaemonSet> = of_kind("manifests/base", "DaemonSet");
    plugins.extend(of_kind("manifests/overlays", "DaemonSet"));
    assert_eq!(plugins.len(), 2);
    for set in plugins {
        let container = container(&set.spec.as_ref().unwrap().template);
        let simulated = container.env.is_none();
        let mut set = set.clone();
        if simulated {
            // the patch leaves the environment of the base unchanged
            let env = self::container(&plugin().spec.unwrap().template).env.clone();
            set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].env = env;
        }
        let args = plugin_args(&set);
        assert_eq!(args.node_name, "some-node");
        assert_eq!(args.domain, Keys::default().domain);
        let config = kerf_plugin::config::Config::try_from(args).unwrap();
        let mounts = container.volume_mounts.iter().flatten().map(|mount| PathBuf::from(&mount.mount_path));
        let mounts: BTreeSet<PathBuf> = mounts.collect();
        if !simulated {
            assert!(mounts.contains(&config.device_plugins_dir));
            assert!(mounts.contains(&config.pod_resources_dir));
            // the runtime mounts from this path, so it is the same on the host
            let volumes = set.spec.as_ref().unwrap().template.spec.as_ref().unwrap().volumes.as_ref().unwrap();
            for directory in [&config.isolation.state_dir, &config.isolation.run_dir] {
                assert!(mounts.contains(directory));
                let own = |path: &str| std::path::Path::new(path) == directory;
                assert!(volumes.iter().any(|volume| own(&volume.host_path.as_ref().unwrap().path)));
            }
            let image = text("images/plugin.Dockerfile");
            assert!(image.contains(&format!(" {}\n", config.isolation.library.display())));
        }
    }
}

fn kustomization(directory: &str) -> Kustomization {
    let file = format!("manifests/{directory}/kustomization.yaml");
    serde_saphyr::from_str(&text(&file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The patches of a kustomization to objects of a kind.
fn operations(kustomization: &Kustomization, kind: &str) -> Vec<Value> {
    let of_kind = kustomization.patches.iter().filter(|patch| patch.target.as_ref().unwrap()["kind"] == kind);
    let read =
        |patch: &kinds::Patch| -> Vec<Value> { serde_saphyr::from_str(patch.patch.as_ref().unwrap()).unwrap() };
    of_kind.flat_map(read).collect()
}

#[test]
fn the_legacy_overlay_serves_the_route_that_its_scheduler_calls() {
    let overlay = kustomization("overlays/legacy");
    let mut deployment = extender();
    assert!(!extender_args(&deployment).legacy);
    for operation in operations(&overlay, "Deployment") {
        assert_eq!(
            (&operation["op"], &operation["path"]),
            (&"add".into(), &"/spec/template/spec/containers/0/args/-".into())
        );
        let spec = deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        spec.containers[0].args.get_or_insert_default().push(operation["value"].as_str().unwrap().to_owned());
    }
    let args = extender_args(&deployment);
    assert!(args.legacy && args.max_body_mib >= 128, "{args:?}");
}

/// The arguments that a kustomization adds to the plugin's.
fn arguments(kustomization: &Kustomization) -> Vec<String> {
    let added = operations(kustomization, "DaemonSet").into_iter().filter(|operation| {
        let path = operation["path"].as_str().unwrap();
        assert!(path.starts_with("/spec/template/spec/"), "{path}");
        assert!(operation["op"] == "add" || path.ends_with("/automountServiceAccountToken"), "{operation}");
        path.ends_with("/args/-")
    });
    added.map(|operation| operation["value"].as_str().unwrap().to_owned()).collect()
}

/// The arguments that a profile's overlay adds to the plugin's, with those of the overlay below it.
fn added(overlay: &str) -> Vec<String> {
    let kustomization = kustomization(&format!("overlays/{overlay}"));
    let base = kustomization.resources[0].strip_prefix("../").unwrap();
    let mut all = if base.starts_with("..") { Vec::new() } else { added(base) };
    all.extend(arguments(&kustomization));
    all
}

#[test]
fn components_label_nodes_and_give_profiles_an_account() {
    let profiles: DaemonSet = only(of_kind("manifests/profiles", "DaemonSet"));
    let account = kustomization("components/profile-account");
    for (component, mode) in [("node-labels", LabelMode::Node), ("nfd-labels", LabelMode::Nfd)] {
        let component = kustomization(&format!("components/{component}"));
        let of_base = plugin_args(&with(&plugin(), &arguments(&component)));
        let mut words = added("amd");
        words.extend(arguments(&account));
        words.extend(arguments(&component));
        let of_profile = plugin_args(&with(&profiles, &words));
        // a value that the node fills in
        assert_eq!(of_profile.node_name, "$(NODE_NAME)");
        let of_profile = kerf_plugin::config::Args { node_name: "some-node".to_owned(), ..of_profile };
        for args in [of_base, of_profile] {
            let directory = args.labels.features_dir.display().to_string();
            let config = kerf_plugin::config::Config::try_from(args).unwrap();
            assert_eq!(config.labels.mode, mode);
            let mounted =
                operations(&component, "DaemonSet").into_iter().map(|operation| operation["value"].clone());
            let paths: Vec<Value> = mounted.filter_map(|value| value.get("mountPath").cloned()).collect();
            let nfd: Vec<Value> = (mode == LabelMode::Nfd).then(|| directory.into()).into_iter().collect();
            assert_eq!(paths, nfd);
        }
        let policy =
            serde_json::json!({ "op": "replace", "path": "/spec/variables/1/expression", "value": "true" });
        let relaxed: Vec<Value> = (mode == LabelMode::Node).then_some(policy).into_iter().collect();
        assert_eq!(operations(&component, "ValidatingAdmissionPolicy"), relaxed);
    }
    let variable =
        operations(&account, "DaemonSet").into_iter().find(|operation| operation["value"]["name"] == "NODE_NAME");
    assert_eq!(variable.unwrap()["value"]["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
}

/// A DaemonSet with more arguments.
fn with(set: &DaemonSet, more: &[String]) -> DaemonSet {
    let mut set = set.clone();
    let container = &mut set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0];
    container.args.get_or_insert_default().extend(more.iter().cloned());
    set
}

#[test]
fn overlays_of_profiles_have_their_systems_flags_and_no_rights() {
    let set: DaemonSet = only(of_kind("manifests/profiles", "DaemonSet"));
    let spec = set.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    assert_eq!(
        (spec.automount_service_account_token, spec.host_pid, spec.service_account_name.as_ref()),
        (Some(false), None, None)
    );
    let container = &spec.containers[0];
    let security = container.security_context.as_ref().unwrap();
    assert_eq!(
        (security.allow_privilege_escalation, security.read_only_root_filesystem),
        (Some(false), Some(true))
    );
    assert_eq!(security.capabilities.as_ref().unwrap().drop.as_deref(), Some(&["ALL".to_owned()][..]));
    let cases = [
        ("amd", "amd"),
        ("intel", "intel"),
        ("nfd_labeled_nodes", "intel"),
        ("deepomatic", "deepomatic"),
        ("nvidia", "nvidia"),
    ];
    for (overlay, profile) in cases {
        let words =
            ["kerf-plugin".to_owned()].into_iter().chain(container.args.clone().unwrap()).chain(added(overlay));
        let words = kerf_plugin::two_dashes(words.map(Into::into));
        let args =
            kerf_plugin::config::Args::try_parse_from(words).unwrap_or_else(|error| panic!("{overlay}: {error}"));
        let config = kerf_plugin::config::Config::try_from(args).unwrap();
        assert!(config.vcuda.is_none(), "{overlay}");
        assert_eq!(
            config.contracts.iter().map(|contract| contract.name).collect::<Vec<_>>(),
            [profile],
            "{overlay}"
        );
        let monitored = config.contracts[0].monitoring.is_some();
        assert_eq!(monitored, overlay == "nfd_labeled_nodes");
    }
}

#[test]
fn the_component_placed_gives_a_profile_the_plugins_account_and_what_placing_needs() {
    let (name, value) = only(documents("manifests/components/placed"));
    let component: Kustomization = serde_json::from_value(value).unwrap();
    assert_eq!(component.kind, "Component");
    let patch = only(component.patches);
    let (target, patch) = (patch.target.unwrap(), patch.patch.unwrap());
    let set: DaemonSet = only(of_kind("manifests/profiles", "DaemonSet"));
    let (label, part) = target["labelSelector"].split_once('=').unwrap();
    assert_eq!((target["kind"].as_str(), &*set.metadata.labels.as_ref().unwrap()[label]), ("DaemonSet", part));
    let patch: DaemonSet = strict(&name, &serde_saphyr::from_str(&patch).unwrap());
    let spec = patch.spec.unwrap().template.spec.unwrap();
    let account = (spec.service_account_name.as_deref(), spec.automount_service_account_token);
    assert_eq!(
        account,
        (plugin().spec.unwrap().template.spec.unwrap().service_account_name.as_deref(), Some(true))
    );
    let added = only(spec.containers.clone());
    let mount = only(added.volume_mounts.clone().unwrap());
    let volume = only(spec.volumes.unwrap());
    let folder = volume.host_path.unwrap().path;
    assert_eq!((&mount.name, &mount.mount_path, mount.read_only), (&volume.name, &folder, Some(true)));
    let mut container = container(&set.spec.unwrap().template).clone();
    assert_eq!((&added.name, &added.args, &added.security_context), (&container.name, &None, &None));
    container.env = added.env;
    let command = kerf_plugin::config::Args::command();
    for (overlay, resource) in [
        ("amd", "amd.com/gpu"),
        ("intel", "gpu.intel.com/xe"),
        ("nfd_labeled_nodes", "gpu.intel.com/i915"),
        ("deepomatic", "deepomatic.com/shared-gpu"),
        ("nvidia", "nvidia.com/gpu"),
    ] {
        let words = command_line("kerf-plugin", &container, &command).into_iter().chain(self::added(overlay));
        let words = kerf_plugin::two_dashes(words.map(Into::into));
        let config = kerf_plugin::config::Config::try_from(kerf_plugin::config::Args::parse_from(words)).unwrap();
        assert!(config.placed && config.vcuda.is_none(), "{overlay}");
        assert_eq!((config.node.as_str(), &config.keys.domain), ("some-node", &Keys::default().domain));
        assert_eq!(config.pod_resources_dir, PathBuf::from(&folder));
        assert!(config.keys.share_resources.contains(resource), "{overlay}");
    }
}

#[test]
fn ports_are_the_programs_defaults_everywhere() {
    let defaults = |command: clap::Command, flag: &str| {
        let listen = command.get_arguments().find(|argument| argument.get_id() == flag).unwrap();
        let default = listen.get_default_values()[0].to_str().unwrap();
        default.parse::<std::net::SocketAddr>().unwrap().port()
    };
    let extender_port = defaults(kerf_extender::config::Args::command(), "listen");
    let metrics_port = defaults(kerf_extender::config::Args::command(), "metrics_listen");
    let plugin_port = defaults(kerf_plugin::config::Args::command(), "metrics_listen");
    let flags = extender_args(&extender()).ports;
    assert_eq!((flags.listen.port(), flags.metrics_listen.port()), (extender_port, metrics_port));
    assert_eq!(plugin_args(&plugin()).metrics_listen.port(), plugin_port);
    let wanted = [vec![("http", extender_port), ("metrics", metrics_port)], vec![("metrics", plugin_port)]];
    for ((name, template), wanted) in templates().into_iter().zip(wanted) {
        let ports = container(&template).ports.as_ref().unwrap();
        let named = ports.iter().map(|port| (port.name.as_deref().unwrap(), port.container_port));
        assert!(named.eq(wanted.iter().map(|(name, port)| (*name, i32::from(*port)))), "{name}: {ports:?}");
        let (asked, port) = *wanted.last().unwrap();
        for probe in [&container(&template).liveness_probe, &container(&template).readiness_probe] {
            let port = serde_json::to_value(&probe.as_ref().unwrap().http_get.as_ref().unwrap().port).unwrap();
            assert_eq!(port, asked, "{name}");
        }
        let annotations = template.metadata.unwrap().annotations.unwrap();
        assert_eq!(annotations["prometheus.io/port"], port.to_string());
        assert_eq!(annotations["prometheus.io/path"], "/metrics");
        let mut policies = of_kind::<NetworkPolicy>("manifests/base", "NetworkPolicy");
        policies.extend(of_kind::<NetworkPolicy>("manifests/components/remote", "NetworkPolicy"));
        let policy = policies.into_iter().find(|policy| policy.metadata.name.as_deref() == Some(name)).unwrap();
        let open = serde_json::to_value(policy.spec.unwrap().ingress).unwrap();
        let rule = |(_, port): &(_, u16)| serde_json::json!({ "ports": [{ "protocol": "TCP", "port": port }] });
        assert_eq!(open, wanted.iter().map(rule).collect::<Value>());
        let image = text(&format!("images/{}.Dockerfile", name.trim_start_matches("kerf-")));
        let exposed: Vec<String> = wanted.iter().map(|(_, port)| port.to_string()).collect();
        assert!(image.contains(&format!("EXPOSE {}\n", exposed.join(" "))), "{name}");
    }
    let service: Service = only(of_kind("manifests/components/remote", "Service"));
    let ports = service.spec.unwrap().ports.unwrap();
    assert_eq!(ports.iter().map(|port| port.port).collect::<Vec<_>>(), [i32::from(extender_port)]);
}

/// Each plugin of a node has the same ports by default, so its pod needs a network of its own; and what one pod serves on
/// loopback is not reached from others.
#[test]
fn no_plugin_shares_its_network_with_others() {
    let sets: Vec<DaemonSet> = of_kind("manifests", "DaemonSet");
    assert!(sets.len() >= 2);
    for set in sets {
        assert_eq!(set.spec.unwrap().template.spec.unwrap().host_network, None, "{:?}", set.metadata.name);
    }
}

#[test]
fn probes_ask_the_routes_made_for_them() {
    for (name, template) in templates() {
        let container = container(&template);
        let path =
            |probe: &Option<k8s_openapi::api::core::v1::Probe>| probe.as_ref()?.http_get.as_ref()?.path.clone();
        assert_eq!(path(&container.liveness_probe).as_deref(), Some("/livez"), "{name}");
        assert_eq!(path(&container.readiness_probe).as_deref(), Some("/readyz"), "{name}");
        let admin = text("runtime/src/admin.rs");
        for route in ["/livez", "/readyz", "/metrics"] {
            assert!(admin.contains(&format!(".route(\"{route}\"")), "{route}");
        }
    }
}

#[test]
fn names_of_objects_fit_together() {
    for (name, template) in templates() {
        let labels = template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
        assert_eq!(labels["app.kubernetes.io/name"], name);
        let spec = template.spec.as_ref().unwrap();
        assert_eq!(spec.service_account_name.as_deref(), Some(name));
        let container = container(&template);
        assert_eq!(container.image.as_deref(), Some(&*format!("{name}:{}", env!("CARGO_PKG_VERSION"))));
        assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"));
        let selects = |selector: Option<&BTreeMap<String, String>>| assert_eq!(selector, Some(labels), "{name}");
        match name {
            "kerf-extender" => {
                selects(extender().spec.unwrap().selector.match_labels.as_ref());
                let service: Service = only(of_kind("manifests/components/remote", "Service"));
                selects(service.spec.unwrap().selector.as_ref());
            }
            _ => selects(plugin().spec.unwrap().selector.match_labels.as_ref()),
        }
    }
    let extender = extender().spec.unwrap();
    assert_eq!((extender.replicas, extender.strategy.unwrap().type_.as_deref()), (Some(1), Some("Recreate")));
}

// === the examples ===

fn examples() -> Vec<Pod> {
    documents("examples/pods")
        .into_iter()
        .map(|(name, value)| {
            let pod: Pod = strict(&name, &value);
            assert!(name.ends_with(&format!("/{}.yaml", pod.metadata.name.as_ref().unwrap())), "{name}");
            assert!(text(&name).starts_with("# "), "{name}: no word on what it shows");
            pod
        })
        .collect()
}

fn cluster() -> Vec<NodeLedger> {
    let node = |cards: u32, gib: u64| {
        let card = |index: u32| Device {
            isolation: Isolation::Limiter,
            ..Device::new(format!("GPU-{gib}-{index}"), index, Mib(gib << 10))
        };
        NodeLedger::new(&Inventory::new((0..cards).map(card).collect()))
    };
    vec![node(4, 24), node(2, 80), node(8, 16)]
}

#[test]
fn every_example_is_a_legal_request_and_all_fit_one_small_cluster_in_any_rotation() {
    let (keys, pods) = (Keys::default(), examples());
    assert_eq!(pods.len(), 9);
    for first in 0..pods.len() {
        for policy in [Policy::Binpack, Policy::Spread] {
            let mut nodes = cluster();
            for pod in pods.iter().cycle().skip(first).take(pods.len()) {
                let name = pod.metadata.name.as_deref().unwrap();
                let request = k8s::request(pod, &keys).unwrap_or_else(|error| panic!("{name}: {error}"));
                let request = Arc::new(request.unwrap_or_else(|| panic!("{name}: asks for no card")));
                let reference = PodRef::new("default", name);
                let placed = nodes.iter_mut().any(|node| {
                    let mut planner = Planner::default();
                    let later = Timestamp(1);
                    planner
                        .assume(node, &PodRequest::new(&name.into(), &reference, &request), policy, later, 0)
                        .is_ok()
                });
                assert!(placed, "{name} has no place when number {first} comes first under {policy}");
            }
        }
    }
}

#[test]
fn the_simulated_cards_can_be_read() {
    let file =
        kerf_plugin::testing::simulated::file::parse(&text("manifests/overlays/simulated/gpus.toml")).unwrap();
    assert_eq!(file.devices.len(), 4);
    assert!(file.devices.iter().all(|host| host.device.usable() && host.device.links.len() == 1));
}
