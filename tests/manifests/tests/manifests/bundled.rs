//! kerf's own scheduler: what runs in its pods, with which rights, and how pods come to it.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kerf::annotation::Keys;
use kerf::request::{
    MAX_AMOUNT, MAX_ANNOTATIONS, MAX_CARD_MEMORY, MAX_CARDS, MAX_CONTAINERS, MAX_LIMITS, MAX_LISTED, MAX_SHARES,
    MAX_UNKNOWN,
};
use kerf::shares::SHARE_RESOURCES;
use serde_json::Value;

use crate::kinds::{Mutating, SchedulerConfiguration};
use crate::reading::{documents, of_kind, only, strict};
use crate::{container, extender, kustomization, parsed};

const NAME: &str = "kerf-scheduler";
const CONFIGURATION: &str = "kerf-scheduler-configuration";

fn scheduler() -> Deployment {
    only(of_kind("manifests/base", "Deployment"))
}

fn pod() -> PodSpec {
    scheduler().spec.unwrap().template.spec.unwrap()
}

/// The extender and kube-scheduler.
fn containers() -> (Container, Container) {
    let pod = pod();
    (only(pod.init_containers.unwrap()), only(pod.containers))
}

fn configuration() -> SchedulerConfiguration {
    let file = "manifests/base/kube-scheduler-configuration.yaml";
    let (name, value) = only(documents("manifests/base").into_iter().filter(|(name, _)| name == file).collect());
    strict(&name, &value)
}

/// Go's way to write a time, here in whole seconds.
fn seconds(value: &Value) -> u64 {
    value.as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap()
}

#[test]
fn the_extender_is_as_where_it_runs_by_itself_but_a_sidecar() {
    let (own, _) = containers();
    let alone = container(&extender().spec.unwrap().template).clone();
    assert_eq!(own.restart_policy.as_deref(), Some("Always"));
    // kube-scheduler starts once the extender is ready
    let ready = own.readiness_probe.as_ref().unwrap();
    assert_eq!(own.startup_probe.as_ref().unwrap().http_get, ready.http_get);
    let args = parsed(&own);
    let Container { args: given, ports, .. } = alone.clone();
    assert_eq!(Container { restart_policy: None, startup_probe: None, args: given, ports, ..own.clone() }, alone);
    let mut like_alone = parsed(&container(&extender().spec.unwrap().template).clone());
    assert!(args.ports.listen.ip().is_loopback() && !like_alone.ports.listen.ip().is_loopback());
    assert_eq!(only(own.ports.unwrap()).container_port, i32::from(args.ports.metrics_listen.port()));
    let lease = configuration().leader_election;
    let lease =
        format!("{}/{}", lease["resourceNamespace"].as_str().unwrap(), lease["resourceName"].as_str().unwrap());
    assert_eq!(args.scheduler_lease, Some(lease.parse().unwrap()));
    like_alone.ports = args.ports.clone();
    like_alone.scheduler_lease.clone_from(&args.scheduler_lease);
    like_alone.scheduler_livez.clone_from(&args.scheduler_livez);
    assert_eq!(format!("{args:?}"), format!("{like_alone:?}"), "they differ in nothing else");
    kerf_extender::config::Config::try_from(&args).unwrap();
    assert!(!args.legacy);
    assert_eq!(args.domain, Keys::default().domain);
}

#[test]
fn its_containers_may_do_nothing_beyond_their_work() {
    let pod = pod();
    let security = pod.security_context.unwrap();
    assert_eq!((security.run_as_non_root, security.run_as_user), (Some(true), Some(65532)));
    assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
    assert!([pod.host_network, pod.host_pid, pod.host_ipc].iter().all(|host| *host != Some(true)));
    let (extender, scheduler) = containers();
    for own in [&extender, &scheduler] {
        let security = own.security_context.as_ref().unwrap();
        assert_eq!(
            (security.allow_privilege_escalation, security.read_only_root_filesystem),
            (Some(false), Some(true))
        );
        let capabilities = security.capabilities.as_ref().unwrap();
        assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
        assert!(capabilities.add.is_none() && security.privileged != Some(true));
        let resources = own.resources.as_ref().unwrap();
        assert!(resources.requests.as_ref().unwrap().contains_key("cpu"));
        assert!(resources.limits.as_ref().unwrap().contains_key("memory"));
    }
    let volume = only(pod.volumes.unwrap());
    assert_eq!(volume.config_map.unwrap().name, CONFIGURATION);
    assert!(only(scheduler.volume_mounts.unwrap()).read_only == Some(true) && extender.volume_mounts.is_none());
    // nobody reaches the verbs from outside; kube-scheduler's port asks for a token
    let policies: Vec<NetworkPolicy> = of_kind("manifests/base", "NetworkPolicy");
    let own = policies.into_iter().find(|policy| policy.metadata.name.as_deref() == Some(NAME)).unwrap();
    let open = serde_json::to_value(own.spec.unwrap().ingress).unwrap();
    let ports = [extender.ports, scheduler.ports].map(|own| only(own.unwrap()).container_port);
    let ports = ports.map(|port| serde_json::json!({ "protocol": "TCP", "port": port }));
    assert_eq!(open, serde_json::json!([{ "ports": ports }]));
}

#[test]
fn kube_scheduler_is_the_clusters_and_reads_kerfs_configuration() {
    let (extender, scheduler) = containers();
    let image = scheduler.image.unwrap();
    let version = kustomization("base").images.into_iter().find(|own| own.name == image).unwrap().new_tag;
    assert!(version.starts_with("v1.") && version.split('.').count() == 3, "{version}");
    let map = only(kustomization("base").config_map_generator);
    let mount = only(scheduler.volume_mounts.unwrap()).mount_path;
    let flag = format!("--config={mount}/{}", only(map.files));
    assert_eq!((&*map.name, scheduler.args.unwrap().contains(&flag)), (CONFIGURATION, true));
    let config = configuration();
    let profiles = serde_json::json!([{ "schedulerName": NAME }]);
    assert_eq!(config.profiles, Some(profiles));
    let url = format!("http://127.0.0.1:{}/scheduler", parsed(&extender).ports.listen.port());
    assert_eq!(only(config.extenders).url_prefix, url);
}

/// Failover is short, and what the last leader asked for is over before the next one leads.
#[test]
fn the_leases_times_leave_no_two_leaders() {
    let config = configuration();
    let lease = &config.leader_election;
    assert_eq!((&lease["resourceNamespace"], &lease["resourceName"]), (&"kerf-system".into(), &NAME.into()));
    let [duration, renew, retry] =
        ["leaseDuration", "renewDeadline", "retryPeriod"].map(|key| seconds(&lease[key]));
    // client-go: a renewal is tried more than once
    assert!(duration > renew && renew > 2 * retry);
    let binding = kerf_extender::config::Config::try_from(&parsed(&containers().0)).unwrap().write_timeout;
    assert!(renew as f64 + binding.as_secs_f64() < duration as f64);
    // it looks once in a period, which is drawn out by up to 1.2
    assert!(duration as f64 + 2.2 * retry as f64 <= 13.0, "the promise is 15 s to the next binding");
}

/// A leader whose extender is gone gives the lease back soon.
#[test]
fn kube_schedulers_probe_is_answered_by_its_extender() {
    let (extender, scheduler) = containers();
    let args = parsed(&extender);
    let probe = scheduler.liveness_probe.unwrap();
    let get = probe.http_get.unwrap();
    assert_eq!(get.path.as_deref(), Some("/livez/scheduler"));
    assert_eq!(get.port, IntOrString::Int(args.ports.metrics_listen.port().into()));
    assert!(get.host.is_none() && get.scheme.is_none());
    assert!(probe.period_seconds.unwrap() * probe.failure_threshold.unwrap() <= 5);
    let port = only(scheduler.ports.unwrap()).container_port;
    assert_eq!(args.scheduler_livez, Some(format!("https://127.0.0.1:{port}/livez").parse().unwrap()));
}

#[test]
fn two_pods_stay_apart_and_one_stays() {
    let deployment = scheduler().spec.unwrap();
    assert_eq!(deployment.replicas, Some(2));
    let labels = deployment.template.metadata.unwrap().labels.unwrap();
    let pod = deployment.template.spec.unwrap();
    assert_eq!(pod.priority_class_name.as_deref(), Some("system-cluster-critical"));
    let budget: PodDisruptionBudget = only(of_kind("manifests/base", "PodDisruptionBudget"));
    let budget = serde_json::to_value(budget.spec.unwrap()).unwrap();
    assert_eq!(budget["maxUnavailable"], 1);
    let apart = pod.affinity.unwrap().pod_anti_affinity.unwrap();
    for term in apart.preferred_during_scheduling_ignored_during_execution.unwrap() {
        // in an upgrade the new ones are apart from each other
        let of_version = ["pod-template-hash".to_owned()];
        assert_eq!(term.pod_affinity_term.match_label_keys.as_deref(), Some(&of_version[..]));
        let selector = term.pod_affinity_term.label_selector.unwrap().match_labels.unwrap();
        for own in [&selector, deployment.selector.match_labels.as_ref().unwrap()] {
            assert!(own.iter().all(|(key, value)| labels.get(key) == Some(value)));
        }
    }
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let own =
            pod.tolerations.iter().flatten().find(|toleration| toleration.key.as_deref() == Some(key)).unwrap();
        assert!((10..=20).contains(&own.toleration_seconds.unwrap()), "{key}");
    }
}

#[test]
fn its_account_has_the_rights_of_a_scheduler_and_two_objects_of_its_own() {
    assert_eq!(pod().service_account_name.as_deref(), Some(NAME));
    let mut bindings: Vec<ClusterRoleBinding> = of_kind("manifests/base", "ClusterRoleBinding");
    bindings.retain(|binding| only(binding.subjects.clone().unwrap()).name == NAME);
    let roles: BTreeSet<String> = bindings.into_iter().map(|binding| binding.role_ref.name).collect();
    assert_eq!(roles, ["system:kube-scheduler", "system:volume-scheduler"].map(String::from).into());
    let bindings: Vec<RoleBinding> = of_kind("manifests/base", "RoleBinding");
    let own: BTreeSet<(String, String)> = bindings
        .into_iter()
        .map(|binding| {
            let subject = only(binding.subjects.unwrap());
            assert_eq!(
                (&*subject.kind, &*subject.name, subject.namespace.as_deref()),
                ("ServiceAccount", NAME, Some("kerf-system"))
            );
            (binding.metadata.namespace.unwrap(), binding.role_ref.name)
        })
        .collect();
    let expected = [
        ("kerf-system", "kerf-extender"),
        ("kerf-system", NAME),
        ("kube-system", "extension-apiserver-authentication-reader"),
    ];
    assert_eq!(own, expected.map(|(namespace, role)| (namespace.to_owned(), role.to_owned())).into());
    let roles: Vec<Role> = of_kind("manifests/base", "Role");
    let lease = roles.into_iter().find(|role| role.metadata.name.as_deref() == Some(NAME)).unwrap();
    let rule = only(lease.rules.unwrap());
    let name = configuration().leader_election["resourceName"].clone();
    assert_eq!(serde_json::to_value(rule.resource_names).unwrap(), serde_json::json!([name]));
    assert_eq!(
        (rule.resources.unwrap(), rule.verbs),
        (vec!["leases".to_owned()], ["get", "list", "watch", "update"].map(str::to_owned).to_vec())
    );
}

/// kustomize puts a hash behind the names of generated ConfigMaps, and so it does with every name like these in rights.
#[test]
fn no_right_is_to_an_object_with_a_name_that_kustomize_changes() {
    let generated = only(kustomization("base").config_map_generator).name;
    for (name, value) in documents("manifests/base") {
        for rule in value["rules"].as_array().into_iter().flatten() {
            let names = rule["resourceNames"].as_array().into_iter().flatten();
            assert!(names.into_iter().all(|own| *own != *generated), "{name}: {rule}");
        }
    }
}

/// What `components/control-plane` takes out is all that belongs to the scheduler, and nothing else.
#[test]
fn a_label_names_the_objects_of_the_scheduler() {
    let of_scheduler = |name: &str| name.starts_with("kerf-scheduler");
    for (name, value) in documents("manifests/base") {
        if value["kind"] == "Kustomization" || value["kind"] == "KubeSchedulerConfiguration" {
            continue;
        }
        let labelled = value["metadata"]["labels"]["app.kubernetes.io/component"] == "scheduler";
        assert_eq!(
            labelled,
            of_scheduler(value["metadata"]["name"].as_str().unwrap()),
            "{name}: {}",
            value["metadata"]
        );
    }
    let map = only(kustomization("base").config_map_generator);
    assert_eq!(map.options.unwrap()["labels"]["app.kubernetes.io/component"], "scheduler");
    let patch = only(kustomization("components/control-plane").patches);
    assert_eq!(patch.target.unwrap()["labelSelector"], "app.kubernetes.io/component=scheduler");
}

fn policies() -> Vec<Value> {
    let own = documents("manifests/base").into_iter().map(|(_, value)| value);
    own.filter(|value| value["kind"].as_str().unwrap().ends_with("AdmissionPolicy")).collect()
}

fn policy(kind: &str, name: &str) -> Value {
    only(
        policies().into_iter().filter(|value| value["kind"] == kind && value["metadata"]["name"] == name).collect(),
    )
}

#[test]
fn pods_are_routed_where_they_name_no_scheduler_and_refused_under_another() {
    let profile = configuration().profiles.unwrap()[0]["schedulerName"].as_str().unwrap().to_owned();
    let routing: Mutating = strict("routing", &policy("MutatingAdmissionPolicy", NAME));
    assert_eq!(routing.spec.failure_policy.as_deref(), Some("Fail"));
    let mutation = serde_json::to_string(&only(routing.spec.mutations.unwrap())).unwrap();
    assert!(mutation.contains(&format!("value: '{profile}'")), "{mutation}");
    let refusing = policy("ValidatingAdmissionPolicy", NAME);
    assert_eq!(refusing["spec"]["failurePolicy"], "Fail");
    assert_eq!(refusing["spec"]["variables"][2]["expression"], format!("['{profile}']"));
    // both decide alike which pods ask for GPUs, and can be told of the same resources
    let variables = routing.spec.variables.unwrap();
    for (at, own) in variables.iter().take(2).enumerate() {
        assert_eq!(refusing["spec"]["variables"][at]["expression"], own.expression);
    }
    let asks = refusing["spec"]["variables"][3]["expression"].as_str().unwrap();
    assert!(variables[2].expression.ends_with(asks), "{asks}");
}

/// The numbers in the expressions are the domain's; `tests/requests.json` has the rest.
#[test]
fn the_policy_about_requests_has_the_domains_bounds() {
    let requests = policy("ValidatingAdmissionPolicy", "kerf-requests");
    let text = requests["spec"]["variables"].to_string();
    for bound in [
        format!("> {MAX_CARD_MEMORY})"),
        format!("/ 100 * {MAX_CARD_MEMORY}"),
        format!("own[1] > {} ?", MAX_CARDS * 100),
        format!("size(variables.asking) > {MAX_CONTAINERS} ?"),
        format!("quantity('{}k')", MAX_SHARES / 1000),
        format!("quantity('{}P')", MAX_AMOUNT / 1_000_000_000_000_000),
        format!("size(variables.containers) > {MAX_LISTED} ?"),
        format!("variables.limits > {MAX_LIMITS} ?"),
        format!("variables.unknown > {MAX_UNKNOWN} ?"),
        format!("size(variables.named) > {MAX_ANNOTATIONS} ?"),
    ] {
        assert!(text.contains(&bound), "{bound}");
    }
    let shares = requests["spec"]["variables"][2]["expression"].as_str().unwrap();
    let named: Vec<&str> = shares.split('\'').skip(1).step_by(2).collect();
    assert_eq!(named.join(","), SHARE_RESOURCES);
    let counted: BTreeSet<String> = policies()
        .iter()
        .filter_map(|policy| policy["spec"]["variables"].as_array()?.get(1).cloned())
        .filter(|own| own["name"] == "counted")
        .map(|own| own["expression"].to_string())
        .collect();
    assert_eq!(counted.len(), 1);
}

#[test]
fn the_static_pods_extender_listens_on_loopback_only() {
    let documents = documents("manifests/scheduler-config").into_iter();
    let (name, value) = only(documents.filter(|(_, value)| value["kind"] == "Pod").collect());
    let pod: Pod = strict(&name, &value);
    let extender = pod.spec.unwrap().containers.into_iter().find(|own| own.name == "kerf-extender").unwrap();
    let args = parsed(&extender);
    assert!(args.ports.listen.ip().is_loopback() && args.kubeconfig.is_some());
    assert_eq!(args.ports.listen.port(), parsed(&containers().0).ports.listen.port());
    kerf_extender::config::Config::try_from(&args).unwrap();
}
