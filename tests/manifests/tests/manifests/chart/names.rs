//! Names, namespace, accounts and domain are those of the release, everywhere.

use std::collections::BTreeSet;

use kerf_extender::WAKER;
use serde_json::Value;

use super::render::{HELMS, Release, folder, object, tools};
use crate::{command_line, known};

/// A release with nothing as in the kustomizations.
const VALUES: &str = "{domain: example.org, fullnameOverride: cards, nodeLabels: node, simulated: {enabled: true},
    routing: {runtimeClassName: gpu, reservedNodes: true}, startupTaint: true, viewer: true, priorityQuota: true, podMonitor: {enabled: true}, rules: {enabled: true}, dashboards: {enabled: true},
    openshift: true, nvidiaHardened: true,
    scheduler: {serviceAccount: {name: placer, annotations: {who: placer}}},
    plugin: {serviceAccount: {name: on-nodes, create: false}},
    profiles: {account: {enabled: true, serviceAccount: {name: others}}, amd: {enabled: true}}}";

/// The accounts that the programs' pods run under, of the account in the release's namespace.
fn user(account: &str) -> String {
    format!("'system:serviceaccount:gpus:{account}'")
}

/// Every user that an expression of a policy names.
fn users(value: &Value) -> BTreeSet<String> {
    let text = value.to_string();
    let named = text.split("'system:serviceaccount:").skip(1);
    named.map(|rest| rest.split('\'').next().unwrap().to_owned()).collect()
}

fn names(objects: &[Value], kind: &str) -> BTreeSet<String> {
    let own = objects.iter().filter(|object| object["kind"] == kind);
    own.map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Everything that a pod template and its selectors refer to is there.
fn workloads_fit(objects: &[Value], accounts: &[&str]) {
    let workload = |object: &&Value| ["Deployment", "DaemonSet"].iter().any(|kind| object["kind"] == *kind);
    for object in objects.iter().filter(workload) {
        let spec = &object["spec"];
        let labels = &spec["template"]["metadata"]["labels"];
        for (key, value) in spec["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(&labels[key], value, "{object}");
        }
        let account = spec["template"]["spec"]["serviceAccountName"].as_str().unwrap();
        assert!(accounts.contains(&account), "{account}");
        let volumes = spec["template"]["spec"]["volumes"].as_array().unwrap().iter();
        for map in volumes.filter_map(|volume| volume["configMap"]["name"].as_str()) {
            assert!(names(objects, "ConfigMap").contains(map), "{map}");
        }
    }
    // each selects the pods of one workload at least
    for kind in ["NetworkPolicy", "PodDisruptionBudget"] {
        for policy in objects.iter().filter(|object| object["kind"] == kind) {
            let selector =
                policy.pointer("/spec/podSelector").or_else(|| policy.pointer("/spec/selector")).unwrap();
            let wanted = selector["matchLabels"].as_object().unwrap();
            let selects = |object: &&Value| {
                let labels = object.pointer("/spec/template/metadata/labels");
                labels.is_some_and(|labels| wanted.iter().all(|(key, value)| &labels[key] == value))
            };
            assert!(objects.iter().any(|object| workload(&object) && selects(&object)), "{policy}");
        }
    }
}

/// Every role, policy and level that an object names is there.
fn references_fit(objects: &[Value], accounts: &[&str]) {
    for object in objects {
        let kind = object["kind"].as_str().unwrap();
        if kind.ends_with("RoleBinding") {
            let role = &object["roleRef"];
            let name = role["name"].as_str().unwrap();
            let of_cluster = name.starts_with("system:") || name.starts_with("extension-apiserver-");
            assert!(of_cluster || names(objects, role["kind"].as_str().unwrap()).contains(name), "{object}");
            for subject in object["subjects"].as_array().unwrap() {
                assert!(accounts.contains(&subject["name"].as_str().unwrap()), "{object}");
                assert_eq!(subject["namespace"], "gpus");
            }
        } else if let Some(policy) = object["spec"]["policyName"].as_str() {
            let of = kind.strip_suffix("Binding").unwrap();
            assert!(names(objects, of).contains(policy), "{object}");
        } else if kind == "FlowSchema" {
            let level = object["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap();
            assert!(level == "leader-election" || names(objects, "PriorityLevelConfiguration").contains(level));
        }
    }
}

#[test]
fn every_name_is_the_releases() {
    let Some(tools) = tools() else { return };
    for helm in HELMS {
        let folder = folder(&format!("names-{helm}"));
        let release = Release { name: "any", namespace: "gpus", ..Release::new(&tools, helm, &folder) };
        let objects = release.objects(VALUES);
        for own in &objects {
            known(VALUES, own);
            let text = own.to_string();
            assert!(!text.contains("kerf-system") && !text.contains("inspur.com"), "{text}");
            let namespace = own["metadata"]["namespace"].as_str();
            let of_cluster = own["metadata"]["name"] == "cards-scheduler-authentication";
            assert!(
                namespace.is_none_or(|namespace| namespace == "gpus" || (of_cluster && namespace == "kube-system"))
            );
            let name = own["metadata"]["name"].as_str().unwrap();
            let account = own["kind"] == "ServiceAccount" && ["placer", "others"].contains(&name);
            // the one object that the extender knows by its name
            let waker = own["kind"] == "CSIStorageCapacity" && name == WAKER;
            assert!(name == "cards" || name.starts_with("cards-") || account || waker, "{name}");
            // cannot be changed, so that an upgrade with other names would end half done
            assert!(!waker || own["storageClassName"] == "kerf-extender-retries", "{own}");
        }
        // the plugin's is there already; a scheduler has no use for that of the remote extender
        assert_eq!(names(&objects, "ServiceAccount"), ["cards-prune", "others", "placer"].map(String::from).into());
        // that of the extender in the place of the scheduler is nobody's of this release
        let accounts = ["placer", "on-nodes", "others", "cards-prune", "cards-extender"];
        workloads_fit(&objects, &accounts);
        references_fit(&objects, &accounts);
        let account = object(&objects, "ServiceAccount", "placer");
        assert_eq!(account["metadata"]["annotations"]["who"], "placer");
        let own = object(&objects, "Role", "cards-extender");
        assert_eq!(own["rules"][0]["resourceNames"], serde_json::json!([WAKER]));
    }
}

#[test]
fn the_policies_know_the_accounts() {
    let Some(tools) = tools() else { return };
    let folder = folder("accounts");
    let release = Release { name: "any", namespace: "gpus", ..Release::new(&tools, "helm4", &folder) };
    let objects = release.objects(VALUES);
    let policy = |name: &str| object(&objects, "ValidatingAdmissionPolicy", name);
    let expected = |accounts: &[&str]| -> BTreeSet<String> {
        accounts.iter().map(|account| format!("gpus:{account}")).collect()
    };
    // the remote extender's has its usual name: nobody of this release has it
    assert_eq!(users(policy("cards-placement-records")), expected(&["placer", "on-nodes", "cards-extender"]));
    assert_eq!(users(policy("cards-bindings")), expected(&["placer", "cards-extender"]));
    assert_eq!(users(policy("cards-plugin-own-node")), expected(&["on-nodes"]));
    assert_eq!(users(policy("cards-plugin-events")), expected(&["on-nodes"]));
    assert_eq!(users(policy("cards-profiles-own-node")), expected(&["others"]));
    let condition = &policy("cards-plugin-own-node")["spec"]["matchConditions"][0]["expression"];
    assert_eq!(*condition, format!("request.userInfo.username == {}", user("on-nodes")));
    for name in ["cards-pods", "cards-requests", "cards-scheduler"] {
        assert_eq!(policy(name)["spec"]["variables"][0]["expression"], "'example.org'");
        assert_eq!(users(policy(name)), BTreeSet::new());
    }
    // an account may have a name that the manifests use for another
    let values = "{fullnameOverride: cards, scheduler: {serviceAccount: {name: kerf-plugin}}}";
    let objects = release.objects(values);
    let records = object(&objects, "ValidatingAdmissionPolicy", "cards-placement-records");
    assert_eq!(users(records), expected(&["kerf-plugin", "cards-plugin", "cards-extender"]));
}

/// The scheduler's name and its lease are the same in all places.
#[test]
fn the_scheduler_and_its_lease_have_one_name() {
    let Some(tools) = tools() else { return };
    let folder = folder("lease");
    let release = Release { name: "any", namespace: "gpus", ..Release::new(&tools, "helm4", &folder) };
    let objects = release.objects(VALUES);
    let map = object(&objects, "ConfigMap", "cards-scheduler-configuration");
    let text = map["data"]["kube-scheduler-configuration.yaml"].as_str().unwrap();
    let configuration: crate::SchedulerConfiguration = serde_saphyr::from_str(text).unwrap();
    assert_eq!(configuration.profiles.unwrap()[0]["schedulerName"], "cards-scheduler");
    let managed: Vec<String> =
        configuration.extenders[0].managed_resources.iter().map(|own| own.name.clone()).collect();
    assert_eq!(managed, ["example.org/vcuda-core", "example.org/vcuda-memory"]);
    let lease = configuration.leader_election;
    assert_eq!((&lease["resourceNamespace"], &lease["resourceName"]), (&"gpus".into(), &"cards-scheduler".into()));
    let role = object(&objects, "Role", "cards-scheduler");
    assert_eq!(role["rules"][0]["resourceNames"], serde_json::json!(["cards-scheduler"]));
    let level = &object(&objects, "FlowSchema", "cards-scheduler-lease")["spec"]["rules"][0];
    assert_eq!(level["resourceRules"][0]["namespaces"], serde_json::json!(["gpus"]));
    assert_eq!(level["subjects"][0]["serviceAccount"], serde_json::json!({"name": "placer", "namespace": "gpus"}));
    let deployment: k8s_openapi::api::apps::v1::Deployment =
        serde_json::from_value(object(&objects, "Deployment", "cards-scheduler").clone()).unwrap();
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let extender = crate::parsed(&pod.init_containers.unwrap()[0]);
    assert_eq!(extender.scheduler_lease, Some("gpus/cards-scheduler".parse().unwrap()));
    assert_eq!(extender.domain, "example.org".parse().unwrap());
    let routing = object(&objects, "MutatingAdmissionPolicy", "cards-scheduler").to_string();
    assert!(routing.contains("'/spec/schedulerName', value: 'cards-scheduler'"), "{routing}");
    assert!(routing.contains("'/spec/runtimeClassName', value: 'gpu'"), "{routing}");
    let refusing = object(&objects, "ValidatingAdmissionPolicy", "cards-scheduler");
    assert_eq!(refusing["spec"]["variables"][2]["expression"], "['cards-scheduler']");
    // and the plugins have the domain
    let set: k8s_openapi::api::apps::v1::DaemonSet =
        serde_json::from_value(object(&objects, "DaemonSet", "cards-plugin").clone()).unwrap();
    let container = &set.spec.unwrap().template.spec.unwrap().containers[0];
    let command = <kerf_plugin::config::Args as clap::CommandFactory>::command();
    assert!(command_line("kerf-plugin", container, &command).contains(&"--domain=example.org".to_owned()));
}

/// Names without an override, as helm's own charts have them.
#[test]
fn objects_are_named_after_release_and_chart() {
    let Some(tools) = tools() else { return };
    let folder = folder("named");
    let cases = [
        ("kerf", "{}", "kerf-scheduler"),
        ("my-kerf", "{}", "my-kerf-scheduler"),
        ("prod", "{}", "prod-kerf-scheduler"),
        ("prod", "{nameOverride: cards}", "prod-cards-scheduler"),
        ("prod", "{fullnameOverride: cards}", "cards-scheduler"),
    ];
    for (name, values, expected) in cases {
        let release = Release { name, ..Release::new(&tools, "helm4", &folder) };
        object(&release.objects(values), "Deployment", expected);
    }
    // names that the manifests use for something else
    for (name, namespace) in [("kerf-system", "gpus"), ("kerf-plugin", "kerf-pods"), ("kerf", "kerf-plugin")] {
        let release = Release { name, namespace, ..Release::new(&tools, "helm4", &folder) };
        let objects = release.objects("{}");
        let account = object(&objects, "ServiceAccount", &format!("{name}-plugin"));
        assert_eq!(account["metadata"]["namespace"], namespace);
        let policy = object(&objects, "ValidatingAdmissionPolicy", &format!("{name}-plugin-own-node"));
        assert_eq!(users(policy), [format!("{namespace}:{name}-plugin")].into());
    }
}
