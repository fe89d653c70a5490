//! What is allowed: rights of the accounts, what containers may do, who may write what.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicySpec,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kerf::annotation::Keys;

use crate::reading::{of_kind, only};
use crate::{container, templates};

#[test]
fn accounts_have_exactly_the_rights_listed_here() {
    let rights = |directory: &str| -> BTreeSet<(String, String, String)> {
        let roles: BTreeMap<String, ClusterRole> = of_kind::<ClusterRole>(directory, "ClusterRole")
            .into_iter()
            .map(|role| (role.metadata.name.clone().unwrap(), role))
            .collect();
        let bindings: Vec<ClusterRoleBinding> = of_kind(directory, "ClusterRoleBinding");
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
                assert_eq!(rule.api_groups.as_deref(), Some(&[String::new()][..]));
                assert!(rule.non_resource_urls.is_none());
                for resource in rule.resources.iter().flatten() {
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
    let base = expected(&[
        ("kerf-extender", "nodes", "list"),
        ("kerf-extender", "nodes", "watch"),
        ("kerf-extender", "pods", "get"),
        ("kerf-extender", "pods", "list"),
        ("kerf-extender", "pods", "watch"),
        ("kerf-extender", "pods/binding", "create"),
        ("kerf-plugin", "events", "create"),
        ("kerf-plugin", "nodes", "get"),
        ("kerf-plugin", "nodes/status", "patch"),
        ("kerf-plugin", "pods", "list"),
        ("kerf-plugin", "pods", "watch"),
        ("kerf-plugin", "pods/status", "patch"),
    ]);
    assert_eq!(rights("manifests/base"), base);
    assert_eq!(rights("manifests/overlays/legacy"), expected(&[("kerf-extender", "pods", "patch")]));
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
            assert_eq!(paths, kubelet.into_iter().chain(own).chain(["/dev"]).collect());
            let expected = [
                ("device-plugins", false),
                ("pod-resources", true),
                ("dev", true),
                ("state", false),
                ("run", false),
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
    assert_eq!((policies.len(), bindings.len()), (3, 3));
    for (policy, binding) in policies.iter().zip(&bindings) {
        let binding = binding.spec.as_ref().unwrap();
        assert_eq!(binding.policy_name, policy.metadata.name);
        assert_eq!(binding.validation_actions.as_deref(), Some(&["Deny".to_owned()][..]));
        assert!(binding.match_resources.is_none());
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
