//! Hosts that are not plain: an NVIDIA container toolkit that believes privileged containers only, SELinux, OpenShift. And what is done
//! when kerf is gone.

use std::collections::{BTreeMap, BTreeSet};

use clap::Parser;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PodSpec, Volume};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde_json::Value;

use super::kinds::SecurityConstraints;
use super::reading::{documents, of_kind, only, root, text};
use super::{container, operations, plugin};

/// Where containers ask NVIDIA's container runtime for GPUs by mounts; each is of /dev/null.
const ASKED: &str = "/var/run/nvidia-container-devices/";

/// A container as NVIDIA's container runtime sees it.
struct Seen {
    /// Host's file and place of each mount.
    mounts: Vec<(String, String)>,
    variable: Option<String>,
    privileged: bool,
}

/// The pod of the base, and of the profile `nvidia` with its overlay's changes.
fn seen() -> [(&'static str, Seen); 2] {
    let mut profile = serde_json::to_value(spec(&only(of_kind("manifests/profiles", "DaemonSet")))).unwrap();
    for operation in operations(&super::kustomization("overlays/nvidia"), "DaemonSet") {
        apply(&mut profile, &operation);
    }
    let of = |spec: &PodSpec| {
        let volumes: BTreeMap<String, Volume> =
            spec.volumes.iter().flatten().map(|volume| (volume.name.clone(), volume.clone())).collect();
        let own = &spec.containers[0];
        let mounts = own.volume_mounts.iter().flatten().filter_map(|mount| {
            let host = volumes[&mount.name].host_path.as_ref()?.path.clone();
            Some((host, mount.mount_path.clone()))
        });
        let variable = own.env.iter().flatten().find(|variable| variable.name == "NVIDIA_VISIBLE_DEVICES");
        let security = own.security_context.as_ref().unwrap();
        let added = security.capabilities.as_ref().and_then(|all| all.add.as_ref());
        Seen {
            mounts: mounts.collect(),
            variable: variable.and_then(|variable| variable.value.clone()),
            privileged: security.privileged == Some(true)
                || added.is_some_and(|all| all.contains(&"SYS_ADMIN".to_owned())),
        }
    };
    let profile: PodSpec = serde_json::from_value(profile).unwrap();
    [("manifests/base", of(&spec(&plugin()))), ("manifests/overlays/nvidia", of(&profile))]
}

fn spec(set: &DaemonSet) -> PodSpec {
    set.spec.as_ref().unwrap().template.spec.clone().unwrap()
}

/// Applies an `add` of a JSON patch of a DaemonSet to its pod.
fn apply(pod: &mut Value, operation: &Value) {
    let path = operation["path"].as_str().unwrap().strip_prefix("/spec/template/spec").unwrap();
    match path.strip_suffix("/-") {
        Some(list) => pod.pointer_mut(list).unwrap().as_array_mut().unwrap().push(operation["value"].clone()),
        None => {
            // a field that may not be there yet
            let (holder, field) = path.rsplit_once('/').unwrap();
            pod.pointer_mut(holder).unwrap()[field] = operation["value"].clone();
        }
    }
}

/// The values of a toolkit's configuration that are not in a section.
fn configuration(text: &str) -> BTreeMap<String, bool> {
    let head = text.lines().take_while(|line| !line.starts_with('['));
    let pairs = head.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.filter_map(|(key, value)| Some((key.trim().to_owned(), value.trim().parse().ok()?))).collect()
}

/// The GPUs that the toolkit gives a container: by mounts where it takes them, otherwise by the variable where it believes it.
fn given(configuration: &BTreeMap<String, bool>, seen: &Seen) -> Option<String> {
    let set = |key: &str, default: bool| configuration.get(key).copied().unwrap_or(default);
    let asked = seen.mounts.iter().filter(|(host, _)| host == "/dev/null");
    let mut mounted = asked.filter_map(|(_, place)| place.strip_prefix(ASKED).map(str::to_owned));
    if set("accept-nvidia-visible-devices-as-volume-mounts", false)
        && let Some(devices) = mounted.next()
    {
        return Some(devices);
    }
    let believed = seen.privileged || set("accept-nvidia-visible-devices-envvar-when-unprivileged", true);
    seen.variable.clone().filter(|_| believed)
}

/// The configuration that `docs/hosts.md` asks for.
fn advised() -> BTreeMap<String, bool> {
    let page = text("docs/hosts.md");
    let block = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    configuration(block)
}

/// Whoever hardens the toolkit as the documentation says takes no GPU from the plugin, and neither does who leaves it as it is.
#[test]
fn a_hardened_toolkit_gives_the_plugin_its_gpus() {
    let hardened = advised();
    assert_eq!(hardened.get("accept-nvidia-visible-devices-envvar-when-unprivileged"), Some(&false));
    let mut configurations =
        vec![("as it is installed", BTreeMap::new()), ("as the documentation asks for", hardened)];
    // the project's shared folder has one that was reported; not everybody has it
    match std::fs::read_to_string(root().join("../shared/cases/b01-toolkit-config.toml")) {
        Ok(reported) => configurations.push(("as it was reported", configuration(&reported))),
        Err(error) => println!("NOT RUN with ../shared/cases/b01-toolkit-config.toml: {error}"),
    }
    for (name, configuration) in &configurations {
        for (place, seen) in seen() {
            assert!(!seen.privileged, "{place}");
            assert_eq!(given(configuration, &seen).as_deref(), Some("all"), "{place}: a toolkit {name}");
        }
    }
    // a tenant sets the variable and mounts nothing of the host
    let tenant = Seen { mounts: Vec::new(), variable: Some("all".to_owned()), privileged: false };
    assert_eq!(given(&advised(), &tenant), None);
    // with the first line alone even the plugin gets nothing, as the documentation says
    let mut half = advised();
    half.remove("accept-nvidia-visible-devices-as-volume-mounts");
    for (place, seen) in seen() {
        assert_eq!(given(&half, &seen), None, "{place}");
    }
}

/// With the component containers get CDI names, which no toolkit's configuration switches off.
#[test]
fn the_component_for_a_hardened_toolkit_names_gpus_by_cdi() {
    let component = super::kustomization("components/nvidia-hardened");
    let flags: Vec<String> =
        operations(&component, "DaemonSet").iter().map(|own| own["value"].as_str().unwrap().to_owned()).collect();
    assert_eq!(flags, ["--cdi-kind=nvidia.com/gpu", "--device-list-strategy=cdi-cri"]);
    let base = super::plugin_args(&super::with(&plugin(), &flags[..1]));
    assert_eq!(base.cdi_kind.as_deref(), Some("nvidia.com/gpu"));
    kerf_plugin::config::Config::try_from(base).unwrap();
    let words =
        ["kerf-plugin".to_owned()].into_iter().chain(super::added("nvidia")).chain(flags[1..].iter().cloned());
    let words = kerf_plugin::two_dashes(words.map(Into::into));
    kerf_plugin::config::Config::try_from(kerf_plugin::config::Args::parse_from(words)).unwrap();
}

/// The plugin that labels files for containers may do so; both may reach kubelet's sockets.
#[test]
fn the_plugins_pods_name_an_selinux_type() {
    for (place, wanted) in [("manifests/base", "spc_t"), ("manifests/profiles", "container_device_plugin_t")] {
        let set: DaemonSet = only(of_kind(place, "DaemonSet"));
        let options = spec(&set).security_context.unwrap().se_linux_options.unwrap();
        assert_eq!(options.type_.as_deref(), Some(wanted), "{place}");
    }
}

/// What a volume is, as OpenShift's constraints name it.
fn volume_kind(volume: &Volume) -> &'static str {
    match volume {
        Volume { host_path: Some(_), .. } => "hostPath",
        Volume { config_map: Some(_), .. } => "configMap",
        _ => panic!("{volume:?}"),
    }
}

/// OpenShift's constraints allow what the plugins' pods need, and nothing that none of them has.
#[test]
fn openshifts_constraints_are_those_of_the_plugins_pods() {
    let constraints: SecurityConstraints =
        only(of_kind("manifests/components/openshift", "SecurityContextConstraints"));
    let sets = ["manifests/base", "manifests/profiles", "manifests/overlays/simulated"];
    let pods: Vec<PodSpec> = sets.iter().map(|place| spec(&only(of_kind(place, "DaemonSet")))).collect();
    let volumes = pods.iter().flat_map(|pod| pod.volumes.iter().flatten());
    // an account's token is a projected volume
    let kinds: BTreeSet<&str> = volumes.map(volume_kind).chain(["projected"]).collect();
    assert_eq!(constraints.volumes.iter().map(String::as_str).collect::<BTreeSet<_>>(), kinds);
    assert_eq!(constraints.allow_host_pid, pods.iter().any(|pod| pod.host_pid == Some(true)));
    for (pod, place) in pods.iter().zip(sets).take(2) {
        let context = pod.security_context.as_ref().unwrap();
        assert_eq!(
            (context.run_as_user, &*constraints.run_as_user["type"].to_string()),
            (Some(0), "\"MustRunAs\"")
        );
        assert_eq!(constraints.run_as_user["uid"], 0);
        assert_eq!(context.seccomp_profile.as_ref().unwrap().type_, "RuntimeDefault", "{place}");
    }
    assert_eq!(constraints.seccomp_profiles, ["runtime/default"]);
    assert!(constraints.allow_host_dir_volume_plugin && constraints.read_only_root_filesystem);
    let refused = [
        constraints.allow_host_ipc,
        constraints.allow_host_network,
        constraints.allow_host_ports,
        constraints.allow_privilege_escalation,
        constraints.allow_privileged_container,
    ];
    assert_eq!(refused, [false; 5]);
    assert_eq!(
        (constraints.required_drop_capabilities, constraints.allowed_capabilities),
        (vec!["ALL".into()], vec![])
    );
    // only accounts of kerf's may use them, by a right to this one object
    assert!(constraints.users.is_empty() && constraints.groups.is_empty());
    let role: Role = only(of_kind("manifests/components/openshift", "Role"));
    let rule = only(role.rules.unwrap());
    assert_eq!(
        (rule.verbs, rule.resource_names),
        (vec!["use".to_owned()], constraints.metadata.name.map(|name| vec![name]))
    );
    let bindings: Vec<RoleBinding> = of_kind("manifests/components/openshift", "RoleBinding");
    let roles: BTreeSet<&str> = bindings.iter().map(|binding| &*binding.role_ref.name).collect();
    assert_eq!(roles, ["kerf-plugin-openshift", "system:openshift:scc:nonroot-v2"].into());
    let accounts: Vec<&str> =
        bindings.iter().flat_map(|binding| binding.subjects.iter().flatten()).map(|own| &*own.name).collect();
    assert_eq!(accounts.iter().collect::<BTreeSet<_>>().len(), accounts.len());
    assert!(accounts.iter().all(|name| name.starts_with("kerf-")), "{accounts:?}");
}

/// The job that cleans up has the flags of its command, runs as an ordinary user, and may do what it does and no more.
#[test]
fn the_job_that_cleans_up_is_the_programs() {
    let job: Job = only(of_kind("manifests/prune", "Job"));
    let template = job.spec.unwrap().template;
    let own = container(&template);
    let arguments = own.args.as_ref().unwrap();
    assert_eq!(arguments[0], "prune");
    let args = kerf_plugin::prune::Args::try_parse_from(arguments).unwrap();
    assert_eq!((args.taint, args.lease), (false, Some("kerf-system/kerf-scheduler".parse().unwrap())));
    let domain = own.env.iter().flatten().find(|variable| variable.name == "KERF_DOMAIN").unwrap();
    assert_eq!(domain.value.as_deref(), Some(args.domain.as_str()));
    let pod = template.spec.as_ref().unwrap();
    assert_eq!(pod.security_context.as_ref().unwrap().run_as_non_root, Some(true));
    assert!(pod.volumes.is_none() && pod.host_pid.is_none());
    let image = container(&super::templates()[1].1).image.clone();
    assert_eq!(own.image, image);
    let role: Role = only(of_kind("manifests/prune", "Role"));
    let rule = only(role.rules.unwrap());
    assert_eq!((rule.verbs, rule.resources), (vec!["delete".to_owned()], Some(vec!["leases".to_owned()])));
    assert_eq!(rule.resource_names, Some(vec!["kerf-scheduler".to_owned()]));
}

/// Each version of the changelog has a page that says what it asks of who upgrades.
#[test]
fn every_release_has_a_page() {
    let changelog = text("CHANGELOG.md");
    let versions: Vec<&str> = changelog
        .lines()
        .filter_map(|line| line.strip_prefix("## [")?.split(']').next())
        .filter(|version| *version != "Unreleased")
        .collect();
    assert!(versions.contains(&env!("CARGO_PKG_VERSION")), "{versions:?}");
    let index = text("docs/releases/README.md");
    for version in versions {
        assert!(text(&format!("docs/releases/{version}.md")).starts_with(&format!("# {version}\n")), "{version}");
        assert!(index.contains(&format!("[{version}]({version}.md)")), "{version}");
    }
}

/// Nothing of the manifests mounts the host's control groups in a way that lets the plugin write to them.
#[test]
fn the_hosts_control_groups_are_mounted_read_only() {
    let mut mounts = 0;
    for (name, value) in documents("manifests/overlays/driver-limits") {
        let kustomization: super::Kustomization = serde_json::from_value(value).unwrap();
        for operation in operations(&kustomization, "DaemonSet") {
            if operation["value"]["mountPath"] == "/sys/fs/cgroup" {
                assert_eq!(operation["value"]["readOnly"], true, "{name}");
                mounts += 1;
            }
        }
    }
    assert_eq!(mounts, 1);
}
