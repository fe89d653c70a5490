//! Permissions: rights of the accounts, security of containers, and who may write what.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicySpec,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use kerf::annotation::Keys;
use kerf::device::Device;
use kerf::units::Mib;
use kerf_extender::WAKER;
use kerf_plugin::testing::backend::{HostDevice, Origin, Vendor};
use kerf_plugin::testing::condition::condition_type;
use kerf_plugin::testing::labels::wanted::{Style, Wanted};

use crate::reading::{of_kind, only};
use crate::{container, templates};

#[test]
fn accounts_have_exactly_the_rights_listed_here() {
    let rights = |directory: &str| -> BTreeSet<(String, String, String)> {
        let roles: BTreeMap<String, ClusterRole> = of_kind::<ClusterRole>(directory, "ClusterRole")
            .into_iter()
            .map(|role| (role.metadata.name.clone().unwrap(), role))
            .collect();
        let mut bindings: Vec<ClusterRoleBinding> = of_kind(directory, "ClusterRoleBinding");
        // the scheduler's, of roles of the cluster's
        bindings.retain(|binding| !binding.role_ref.name.starts_with("system:"));
        assert_eq!(roles.len(), bindings.len());
        let mut rights = BTreeSet::new();
        for binding in bindings {
            assert_eq!(binding.role_ref.kind, "ClusterRole");
            let subject = only(binding.subjects.unwrap());
            assert_eq!((&*subject.kind, subject.namespace.as_deref()), ("ServiceAccount", Some("kerf-system")));
            // a role that is not defined here, such as cluster-admin, is not found
            let role = &roles[&binding.role_ref.name];
            assert!(role.aggregation_rule.is_none());
            for rule in role.rules.iter().flatten() {
                let group = only(rule.api_groups.clone().unwrap());
                assert!(rule.non_resource_urls.is_none());
                for resource in rule.resources.iter().flatten() {
                    let resource = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
                    for verb in &rule.verbs {
                        rights.insert((subject.name.clone(), resource.clone(), verb.clone()));
                    }
                }
            }
        }
        rights
    };
    let expected = |list: &[(&str, &str, &str)]| -> BTreeSet<(String, String, String)> {
        list.iter().map(|(who, what, how)| ((*who).into(), (*what).into(), (*how).into())).collect()
    };
    let control_plane = expected(&[
        ("kerf-extender", "nodes", "list"),
        ("kerf-extender", "nodes", "watch"),
        ("kerf-extender", "poddisruptionbudgets.policy", "list"),
        ("kerf-extender", "poddisruptionbudgets.policy", "watch"),
        ("kerf-extender", "pods", "get"),
        ("kerf-extender", "pods", "list"),
        ("kerf-extender", "pods", "watch"),
        ("kerf-extender", "pods/binding", "create"),
    ]);
    assert_eq!(rights("manifests/components/control-plane"), control_plane);
    let base = expected(&[
        ("kerf-plugin", "events", "create"),
        ("kerf-plugin", "nodes", "get"),
        ("kerf-plugin", "nodes", "list"),
        ("kerf-plugin", "nodes", "watch"),
        ("kerf-plugin", "nodes/status", "patch"),
        ("kerf-plugin", "pods", "list"),
        ("kerf-plugin", "pods", "watch"),
        ("kerf-plugin", "pods/status", "patch"),
    ]);
    assert_eq!(rights("manifests/base"), base);
    assert_eq!(rights("manifests/components/startup-taint"), expected(&[("kerf-plugin", "nodes", "patch")]));
    assert_eq!(rights("manifests/overlays/legacy"), expected(&[("kerf-extender", "pods/status", "patch")]));
    let profiles = expected(&[
        ("kerf-profiles", "events", "create"),
        ("kerf-profiles", "nodes", "get"),
        ("kerf-profiles", "nodes/status", "patch"),
    ]);
    assert_eq!(rights("manifests/components/profile-account"), profiles);
    let prune = expected(&[("kerf-prune", "nodes", "list"), ("kerf-prune", "nodes/status", "patch")]);
    assert_eq!(rights("manifests/prune"), prune);
}

/// People who look change nothing, and fetch what kerf's own pods serve alone.
#[test]
fn viewers_read_nodes_and_pods_and_fetch_metrics_in_kerfs_namespace() {
    const FILE: &str = "manifests/components/viewer";
    let cluster: ClusterRole = only(of_kind(FILE, "ClusterRole"));
    let own: Role = only(of_kind(FILE, "Role"));
    assert_eq!(own.metadata.namespace.as_deref(), Some("kerf-system"));
    assert!(of_kind::<ClusterRoleBinding>(FILE, "ClusterRoleBinding").is_empty(), "nobody has them unasked");
    let rights = |rules: Option<Vec<PolicyRule>>| -> Vec<(String, String)> {
        let each = |rule: PolicyRule| {
            assert!(rule.non_resource_urls.is_none() && rule.resource_names.is_none());
            let resources = rule.resources.unwrap_or_default();
            resources.into_iter().map(move |resource| (resource, rule.verbs.join(" ")))
        };
        rules.into_iter().flatten().flat_map(each).collect()
    };
    let expected = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|(what, how)| ((*what).into(), (*how).into())).collect()
    };
    assert!(cluster.aggregation_rule.is_none());
    assert_eq!(rights(cluster.rules), expected(&[("nodes", "get list watch"), ("pods", "get list watch")]));
    assert_eq!(rights(own.rules), expected(&[("pods/proxy", "get"), ("leases", "get list watch")]));
}

#[test]
fn the_extender_may_change_one_object_of_its_namespace() {
    let mut roles: Vec<Role> = of_kind("manifests/base", "Role");
    roles.retain(|role| role.metadata.name.as_deref() == Some(WAKER));
    let role = only(roles);
    let binding: RoleBinding = only(of_kind("manifests/components/control-plane", "RoleBinding"));
    let object: CSIStorageCapacity = only(of_kind("manifests/base", "CSIStorageCapacity"));
    let rule = only(role.rules.unwrap());
    assert_eq!(rule.api_groups.as_deref(), Some(&["storage.k8s.io".to_owned()][..]));
    assert_eq!(rule.resources.as_deref(), Some(&["csistoragecapacities".to_owned()][..]));
    assert_eq!(rule.resource_names.as_deref(), Some(&[WAKER.to_owned()][..]));
    assert_eq!(rule.verbs, ["patch"]);
    for metadata in [&role.metadata, &binding.metadata, &object.metadata] {
        assert_eq!((metadata.name.as_deref(), metadata.namespace.as_deref()), (Some(WAKER), Some("kerf-system")));
    }
    assert_eq!((&*binding.role_ref.kind, &*binding.role_ref.name), ("Role", WAKER));
    let subject = only(binding.subjects.unwrap());
    assert_eq!((&*subject.kind, &*subject.name), ("ServiceAccount", "kerf-extender"));
    assert_eq!(subject.namespace.as_deref(), Some("kerf-system"));
    // the object offers no storage
    assert!(object.node_topology.is_none() && object.capacity.is_none());
}

#[test]
fn containers_may_do_nothing_beyond_their_work() {
    for (name, template) in templates() {
        let spec = template.spec.as_ref().unwrap();
        let pod = spec.security_context.as_ref().unwrap();
        assert_eq!(pod.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault", "{name}");
        let own = container(&template).security_context.as_ref().unwrap();
        assert_eq!(own.allow_privilege_escalation, Some(false), "{name}");
        assert_eq!(own.read_only_root_filesystem, Some(true), "{name}");
        assert_ne!(own.privileged, Some(true), "{name}");
        let capabilities = own.capabilities.as_ref().unwrap();
        assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]), "{name}");
        assert!(capabilities.add.is_none(), "{name}");
        let hosts = [spec.host_network, spec.host_ipc];
        assert!(hosts.iter().all(|host| *host != Some(true)), "{name}");
        let resources = container(&template).resources.as_ref().unwrap();
        assert!(resources.requests.as_ref().unwrap().contains_key("cpu"), "{name}");
        assert!(resources.limits.as_ref().unwrap().contains_key("memory"), "{name}");
        let mounts: BTreeSet<(&str, bool)> = container(&template)
            .volume_mounts
            .iter()
            .flatten()
            .map(|mount| (&*mount.name, mount.read_only.unwrap_or(false)))
            .collect();
        let paths: BTreeSet<&str> =
            spec.volumes.iter().flatten().map(|volume| &*volume.host_path.as_ref().unwrap().path).collect();
        if name == "kerf-extender" {
            assert_eq!(pod.run_as_non_root, Some(true));
            assert!(paths.is_empty() && mounts.is_empty());
            assert_ne!(spec.host_pid, Some(true));
        } else {
            let kubelet = ["/var/lib/kubelet/device-plugins", "/var/lib/kubelet/pod-resources"];
            let own = ["/var/lib/kerf", "/run/kerf"];
            let devices = ["/dev", "/dev/null"];
            assert_eq!(paths, kubelet.into_iter().chain(own).chain(devices).collect());
            let expected = [
                ("device-plugins", false),
                ("pod-resources", true),
                ("dev", true),
                ("state", false),
                ("run", false),
                ("nvidia-devices", true),
            ];
            assert_eq!(mounts, expected.into_iter().collect());
        }
    }
}

#[test]
fn admission_policies_deny_and_name_the_annotations_that_are_written() {
    let keys = Keys::default();
    let policies: Vec<ValidatingAdmissionPolicy> = of_kind("manifests/base", "ValidatingAdmissionPolicy");
    let bindings: Vec<ValidatingAdmissionPolicyBinding> =
        of_kind("manifests/base", "ValidatingAdmissionPolicyBinding");
    assert_eq!((policies.len(), bindings.len()), (8, 8));
    for (policy, binding) in policies.iter().zip(&bindings) {
        let binding = binding.spec.as_ref().unwrap();
        assert_eq!(binding.policy_name, policy.metadata.name);
        assert_eq!(binding.validation_actions.as_deref(), Some(&["Deny".to_owned()][..]));
        // namespaces can be left to other schedulers, not to those who would write kerf's records
        let scheduling = ["kerf-requests", "kerf-scheduler"].contains(&&**policy.metadata.name.as_ref().unwrap());
        assert_eq!(binding.match_resources.is_some(), scheduling);
    }
    let spec = |at: usize| -> &ValidatingAdmissionPolicySpec { policies[at].spec.as_ref().unwrap() };
    for at in 0..2 {
        assert_eq!(spec(at).failure_policy.as_deref(), Some("Fail"));
        assert_eq!(spec(at).variables.as_ref().unwrap()[0].expression, format!("'{}'", keys.domain));
        let all = serde_json::to_string(spec(at)).unwrap();
        assert!(all.contains("system:serviceaccount:kerf-system:kerf-plugin"));
        for key in [&keys.placement, &keys.gpu_assigned, &keys.isolated] {
            let suffix = key.strip_prefix("inspur.com").unwrap();
            assert!(all.contains(&format!("variables.domain + '{suffix}'")), "{suffix}");
        }
        for key in [&keys.predicate_node, &keys.predicate_time, &keys.predicate_gpu_idx] {
            assert!(key.starts_with("inspur.com/predicate-"));
        }
        assert!(all.contains("key.startsWith(variables.domain + '/predicate-')"));
    }
    assert!(serde_json::to_string(spec(0)).unwrap().contains("system:serviceaccount:kerf-system:kerf-extender"));
    let inventory = keys.inventory.strip_prefix("inspur.com").unwrap();
    assert!(serde_json::to_string(spec(1)).unwrap().contains(&format!("variables.domain + '{inventory}'")));
}

/// Every policy with a domain has it as its first variable, so that an overlay can replace it; each is enforced.
#[test]
fn policies_keep_what_users_ask_for_and_who_may_write_it() {
    let keys = Keys::default();
    let policies: Vec<ValidatingAdmissionPolicy> = of_kind("manifests/base", "ValidatingAdmissionPolicy");
    let spec = |name: &str| -> ValidatingAdmissionPolicySpec {
        only(policies.iter().filter(|policy| policy.metadata.name.as_deref() == Some(name)).collect::<Vec<_>>())
            .spec
            .clone()
            .unwrap()
    };
    let own = [&keys.core_limit, &keys.policy, &keys.isolation, &keys.shares];
    let list: Vec<String> = own.iter().map(|key| format!("'/{}'", key.split_once('/').unwrap().1)).collect();
    let list = format!("[{}]", list.join(", "));
    for (name, verbs, resources) in [
        ("kerf-pods", "CREATE UPDATE", "pods pods/status"),
        ("kerf-bindings", "CREATE", "pods/binding bindings"),
        ("kerf-extender-waiting-pods", "UPDATE", "pods pods/status"),
    ] {
        let spec = spec(name);
        assert_eq!(spec.failure_policy.as_deref(), Some("Fail"), "{name}");
        assert_eq!(spec.variables.as_ref().unwrap()[0].expression, format!("'{}'", keys.domain), "{name}");
        let rule = only(spec.match_constraints.clone().unwrap().resource_rules.unwrap());
        assert_eq!(rule.operations.unwrap().join(" "), verbs, "{name}");
        assert_eq!(rule.resources.unwrap().join(" "), resources, "{name}");
        assert!(serde_json::to_string(&spec).unwrap().contains(&list), "{name} does not name {list}");
    }
    let counted = &spec("kerf-pods").variables.unwrap()[1];
    assert_eq!((&*counted.name, &*counted.expression), ("counted", "[]"));
    // the extender's account is named where its bindings are
    assert!(serde_json::to_string(&spec("kerf-bindings")).unwrap().contains("kerf-system:kerf-extender'"));
    let metadata = ["ownerReferences", "finalizers"]
        .map(|field| format!("object.metadata.?{field} == oldObject.metadata.?{field}"));
    for name in ["kerf-plugin-own-node", "kerf-extender-waiting-pods"] {
        let rules = spec(name).validations.unwrap();
        for field in &metadata {
            assert!(rules.iter().any(|rule| rule.expression.contains(field)), "{name}: {field}");
        }
    }
}

/// kube-scheduler waits for the extender's requests, and a leader for its lease.
#[test]
fn kerfs_requests_are_not_queued_with_those_of_all_service_accounts() {
    let level: PriorityLevelConfiguration = only(of_kind("manifests/base", "PriorityLevelConfiguration"));
    let schemas: Vec<FlowSchema> = of_kind("manifests/base", "FlowSchema");
    let expected = [
        (level.metadata.name.as_deref().unwrap(), vec!["kerf-extender", "kerf-scheduler"]),
        ("leader-election", vec!["kerf-scheduler"]),
    ];
    assert_eq!(schemas.len(), expected.len());
    let mut last = i32::MAX;
    for (schema, (level, accounts)) in schemas.into_iter().zip(expected) {
        let spec = schema.spec.unwrap();
        assert_eq!(spec.priority_level_configuration.name, level);
        // before service-accounts, and the lease's before all others
        let precedence = spec.matching_precedence.unwrap();
        assert!(precedence < 9000.min(last));
        last = precedence;
        let rule = only(spec.rules.unwrap());
        let subjects: Vec<(String, String)> = rule
            .subjects
            .into_iter()
            .map(|subject| subject.service_account.unwrap())
            .map(|account| (account.namespace, account.name))
            .collect();
        let named: Vec<(String, String)> =
            accounts.iter().map(|name| ("kerf-system".to_owned(), (*name).to_owned())).collect();
        assert_eq!(subjects, named);
        let resources = only(rule.resource_rules.unwrap());
        if level == "kerf" {
            assert!(resources.cluster_scope.unwrap() && resources.namespaces.unwrap() == ["*"]);
            assert_eq!((resources.verbs, resources.resources), (vec!["*".to_owned()], vec!["*".to_owned()]));
        } else {
            assert_eq!(
                (resources.verbs.join(" "), resources.resources.join(" ")),
                ("get create update".into(), "leases".into())
            );
        }
    }
}

#[test]
fn the_extender_is_replaced_soon_where_its_node_is_gone() {
    let (_, template) = templates().into_iter().next().unwrap();
    let tolerations = template.spec.unwrap().tolerations.unwrap();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let own = tolerations.iter().find(|toleration| toleration.key.as_deref() == Some(key));
        let seconds = own.unwrap().toleration_seconds.unwrap();
        assert_eq!(own.unwrap().effect.as_deref(), Some("NoExecute"));
        assert!((10..=20).contains(&seconds), "{key}: {seconds}");
    }
}

#[test]
fn policies_let_pass_the_labels_and_conditions_that_are_written_and_no_others() {
    let policies: Vec<ValidatingAdmissionPolicy> = of_kind("manifests/base", "ValidatingAdmissionPolicy");
    let own = policies[1].spec.as_ref().unwrap();
    let labels = own.variables.as_ref().unwrap().get(1).unwrap();
    assert_eq!((&*labels.name, &*labels.expression), ("mayLabel", "false"));
    let rule = own.validations.as_ref().unwrap().last().unwrap().expression.clone();
    let prefixes = kerf_plugin::testing::labelled().flat_map(|(_, prefixes)| prefixes).collect::<Vec<_>>();
    for prefix in &prefixes {
        assert!(rule.contains(&format!("key.startsWith('{prefix}')")), "{prefix}");
    }
    assert_eq!(rule.matches("startsWith").count(), prefixes.len());
    let host = |vendor| HostDevice::new(Device::new("d", 0, Mib(1)), Origin { vendor, ..Origin::default() });
    let (amd, intel) = (host(Vendor::Amd), host(Vendor::Intel));
    let wanted = Wanted::of(&[&amd, &intel], &Style { vcuda: true, ..Style::default() });
    assert_eq!(wanted.gates.iter().len(), 2);
    for (gate, _) in wanted.gates.iter() {
        assert!(rule.contains(&format!("'{gate}'")), "{gate}");
    }
    let all = serde_json::to_string(own).unwrap();
    assert_eq!(all.matches("condition.type.matches('^Kerf[A-Za-z]*(GPUsHealthy|AllocationsSucceed)$')").count(), 2);
    for offer in ["vcuda", "amd", "intel", "deepomatic", "nvidia"] {
        let kind = condition_type(offer);
        let word = kind.strip_prefix("Kerf").unwrap().strip_suffix("GPUsHealthy").unwrap();
        assert!(word.chars().all(|c| c.is_ascii_alphabetic()), "{kind}");
    }
    let lists = Keys::default().labels;
    assert!(all.contains(&format!("variables.domain + '{}'", lists.strip_prefix("inspur.com").unwrap())));
}

/// Its plugin runs on a node that has the startup taint, and the policy lets the removal of that taint pass.
#[test]
fn the_startup_taint_is_tolerated_and_named_where_it_may_be_removed() {
    let taint = Keys::default().starting;
    let sets: Vec<DaemonSet> = ["manifests/base", "manifests/profiles"]
        .into_iter()
        .map(|place| only(of_kind(place, "DaemonSet")))
        .collect();
    for set in &sets {
        let tolerations = set.spec.as_ref().unwrap().template.spec.as_ref().unwrap().tolerations.as_ref().unwrap();
        let own = tolerations.iter().find(|toleration| toleration.key.as_ref() == Some(&taint)).unwrap();
        assert_eq!((own.operator.as_deref(), own.effect.as_deref()), (Some("Exists"), None));
    }
    let policies: Vec<ValidatingAdmissionPolicy> = of_kind("manifests/base", "ValidatingAdmissionPolicy");
    let own = policies[1].spec.as_ref().unwrap();
    let before = own.variables.iter().flatten().find(|variable| variable.name == "taintsBefore").unwrap();
    let suffix = taint.strip_prefix("inspur.com").unwrap();
    assert!(before.expression.contains(&format!("taint.key != variables.domain + '{suffix}'")));
    let rules: Vec<&str> = own.validations.iter().flatten().map(|rule| rule.expression.as_str()).collect();
    let spec = only(
        rules.into_iter().filter(|rule| rule.starts_with("object.?spec == oldObject.?spec")).collect::<Vec<_>>(),
    );
    assert!(spec.ends_with("variables.taintsBefore == variables.taintsAfter)"), "{spec}");
}

/// The component's policies are separate, so that each may be removed without the other; their rules are the same.
#[test]
fn profiles_are_held_to_the_same_rules_as_the_plugin() {
    let own: Vec<ValidatingAdmissionPolicy> =
        of_kind("manifests/components/profile-account", "ValidatingAdmissionPolicy");
    let bindings: Vec<ValidatingAdmissionPolicyBinding> =
        of_kind("manifests/components/profile-account", "ValidatingAdmissionPolicyBinding");
    let base: Vec<ValidatingAdmissionPolicy> = of_kind("manifests/base", "ValidatingAdmissionPolicy");
    assert_eq!((own.len(), bindings.len()), (2, 2));
    for ((own, binding), base) in own.iter().zip(&bindings).zip(&base[1..]) {
        assert_eq!(binding.spec.as_ref().unwrap().policy_name, own.metadata.name);
        assert_eq!(binding.spec.as_ref().unwrap().validation_actions.as_deref(), Some(&["Deny".to_owned()][..]));
        let (own, base) = (own.spec.as_ref().unwrap(), base.spec.as_ref().unwrap());
        assert_eq!(own.failure_policy, base.failure_policy);
        assert_eq!((&own.variables, &own.validations), (&base.variables, &base.validations));
        let account = "request.userInfo.username == 'system:serviceaccount:kerf-system:kerf-profiles'";
        assert_eq!(only(own.match_conditions.clone().unwrap()).expression, account);
    }
}
