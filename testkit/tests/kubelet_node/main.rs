//! The kubelet treats plugins and pods as the real one does.

#![allow(clippy::expect_used, reason = "a failing test may stop at once, its helpers too")]

mod plugin;

use std::collections::BTreeSet;
use std::time::Duration;

use kerf_proto::deviceplugin::{RegisterRequest, VERSION};
use kerf_proto::podresources::pod_resources_lister_client::PodResourcesListerClient;
use kerf_proto::podresources::{AllocatableResourcesRequest, GetPodResourcesRequest, ListPodResourcesRequest};
use kerf_testkit::api::{ApiServer, Watchers};
use kerf_testkit::kubelet::{Call, ContainerState, Kubelet, KubeletConfig};
use plugin::{Plugin, channel, register};
use serde_json::{Value, json};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
const CORE: &str = "example.com/core";
const MEMORY: &str = "example.com/memory";

struct Node {
    server: ApiServer,
    kubelet: Kubelet,
    _dir: TempDir,
}

async fn node_with(change: impl FnOnce(&mut KubeletConfig)) -> Node {
    let dir = tempfile::tempdir().expect("dir");
    let server = ApiServer::start().await.expect("start");
    let mut config = KubeletConfig::new("n", server.url(), dir.path());
    change(&mut config);
    let kubelet = Kubelet::start(config).await.expect("start");
    Node { server, kubelet, _dir: dir }
}

async fn node() -> Node {
    node_with(|_| {}).await
}

impl Node {
    async fn plugin(&self, resource: &str, count: usize) -> Plugin {
        let plugin = Plugin::start(&self.kubelet.config().device_plugins_dir, resource, count).await;
        plugin.register(&self.kubelet.config().registration_socket()).await.expect("register");
        self.kubelet.wait_registered(&[resource], SOON).await.expect("registered");
        plugin
    }

    fn run(&self, pod: Value) {
        let made = self.server.create("pods", pod).expect("pod");
        let name = made["metadata"]["name"].as_str().expect("name");
        self.server.bind("ns", name, "n").expect("bind");
    }

    async fn phase(&self, name: &str, phase: &str) -> Value {
        let pod = self
            .server
            .wait_for_object("pods", "ns", name, SOON, |pod| pod.is_some_and(|pod| pod["status"]["phase"] == phase))
            .await
            .expect("phase");
        pod.map(|pod| (*pod).clone()).expect("pod")
    }

    fn ids(&self, pod: &str, container: &str, resource: &str) -> BTreeSet<String> {
        let container = self.kubelet.container("ns", pod, container).expect("container");
        container.ids(resource).into_iter().collect()
    }

    async fn amounts(&self, resource: &str, capacity: &str, allocatable: &str) {
        self.server
            .wait_for_object("nodes", "", "n", SOON, |node| {
                node.is_some_and(|node| {
                    node["status"]["capacity"][resource] == capacity
                        && node["status"]["allocatable"][resource] == allocatable
                })
            })
            .await
            .expect("amounts");
    }
}

fn container(name: &str, limits: &[(&str, usize)]) -> Value {
    let limits: serde_json::Map<String, Value> =
        limits.iter().map(|(name, size)| ((*name).to_owned(), size.to_string().into())).collect();
    json!({ "name": name, "image": "i", "resources": { "limits": limits } })
}

fn pod(name: &str, limits: &[(&str, usize)]) -> Value {
    json!({ "metadata": { "name": name, "namespace": "ns" }, "spec": { "containers": [container("main", limits)] }, "status": { "phase": "Pending" } })
}

#[tokio::test]
async fn a_registration_is_checked_and_followed_by_the_nodes_status() {
    let node = node().await;
    let config = node.kubelet.config();
    let socket = config.registration_socket();
    let request = |version: &str, resource: &str, endpoint: &str| RegisterRequest {
        version: version.into(),
        endpoint: endpoint.into(),
        resource_name: resource.into(),
        options: None,
    };
    let refused = register(&socket, request("v1alpha", CORE, "x.sock")).await.expect_err("version");
    assert!(refused.message().contains("requested API version \"v1alpha\" is not supported"), "{refused}");
    let refused = register(&socket, request(VERSION, "cpu", "x.sock")).await.expect_err("name");
    assert!(refused.message().contains("the ResourceName \"cpu\" is invalid"), "{refused}");
    register(&socket, request(VERSION, CORE, "nobody.sock")).await.expect_err("nobody listens");

    let plugin = node.plugin(CORE, 3).await;
    assert_eq!(plugin.log.lock().expect("log")[0], "options", "asked before the registration is answered");
    node.amounts(CORE, "3", "3").await;
    let labels = node.server.get("nodes", "", "n").expect("node")["metadata"]["labels"].clone();
    assert_eq!(labels, json!({ "kubernetes.io/hostname": "n" }));
    plugin.set_health("core-1", false);
    node.amounts(CORE, "3", "2").await;
    plugin.set_health("core-1", true);
    node.amounts(CORE, "3", "3").await;
    plugin.stop().await;
    node.amounts(CORE, "3", "0").await;
    let _again = node.plugin(CORE, 2).await;
    node.amounts(CORE, "2", "2").await;
}

#[tokio::test]
async fn a_pod_gets_its_devices_and_runs_and_its_end_frees_them() {
    let node = node().await;
    let core = node.plugin(CORE, 4).await;
    let memory = node.plugin(MEMORY, 4).await;
    core.answer(|answer, ids| {
        answer.envs.insert("SHARED".into(), "core".into());
        answer.envs.insert("CORE".into(), ids.len().to_string());
    });
    memory.answer(|answer, _| {
        answer.envs.insert("SHARED".into(), "memory".into());
        answer.annotations.insert("a".into(), "b".into());
    });
    node.run(pod("p", &[(CORE, 2), (MEMORY, 3)]));
    let running = node.phase("p", "Running").await;
    assert_eq!(running["status"]["containerStatuses"][0]["name"], "main");
    let found = node.kubelet.container("ns", "p", "main").expect("container");
    assert_eq!((found.state, found.starts), (ContainerState::Running, 1));
    assert_eq!((found.ids(CORE).len(), found.ids(MEMORY).len()), (2, 3));
    assert_eq!((found.env["CORE"].as_str(), found.annotations["a"].as_str()), ("2", "b"));
    let conflict = found.conflicts.first().expect("the plugins disagree");
    assert_eq!((conflict.kind, conflict.key.as_str()), ("env", "SHARED"));
    assert_ne!(conflict.kept, conflict.dropped);
    assert_eq!(found.env["SHARED"], conflict.kept);

    node.run(pod("q", &[(CORE, 3)]));
    let refused = node.phase("q", "Failed").await;
    assert_eq!(refused["status"]["reason"], "UnexpectedAdmissionError");
    assert_eq!(
        refused["status"]["message"],
        format!(
            "Pod was rejected: Allocate failed due to requested number of devices unavailable for {CORE}. Requested: 3, Available: 2, which is unexpected"
        )
    );
    node.server.delete("pods", "ns", "p").expect("delete");
    node.server.wait_for_object("pods", "ns", "p", SOON, |pod| pod.is_none()).await.expect("gone");
    node.run(pod("r", &[(CORE, 3)]));
    node.phase("r", "Running").await;
    node.kubelet.complete_pod("ns", "r", "Succeeded").await.expect("complete");
    node.phase("r", "Succeeded").await;
    node.run(pod("s", &[(CORE, 4)]));
    node.phase("s", "Running").await;
    assert_eq!(node.kubelet.containers().len(), 1);
}

#[tokio::test]
async fn preferences_are_asked_and_cut_to_what_is_free() {
    let node = node().await;
    let core = node.plugin(CORE, 6).await;
    core.prefer(|_, _, _| Ok(["core-4", "core-5", "nonsense"].map(String::from).to_vec()));
    node.run(pod("p", &[(CORE, 2)]));
    node.phase("p", "Running").await;
    assert_eq!(node.ids("p", "main", CORE), BTreeSet::from(["core-4", "core-5"].map(String::from)));
    node.run(pod("q", &[(CORE, 2)]));
    node.phase("q", "Running").await;
    assert!(node.ids("q", "main", CORE).is_disjoint(&node.ids("p", "main", CORE)), "held ids are not free");
    let offered = |call: &Call| match call {
        Call::Preferred { pod, available, size, .. } if pod == "ns/q" => {
            Some((available.iter().cloned().collect::<BTreeSet<_>>(), *size))
        }
        _ => None,
    };
    let calls = node.kubelet.calls();
    assert_eq!(calls.iter().find_map(offered), Some(((0..4).map(|id| format!("core-{id}")).collect(), 2)));
    core.prefer(|_, _, _| Err("no opinion"));
    node.run(pod("r", &[(CORE, 1)]));
    let refused = node.phase("r", "Failed").await;
    let message = refused["status"]["message"].as_str().expect("message").to_owned();
    assert_eq!(
        message,
        "Pod was rejected: Allocate failed due to rpc error: code = Internal desc = no opinion, which is unexpected"
    );
}

#[tokio::test]
async fn errors_of_allocate_fail_the_pod_and_leave_nothing_behind() {
    let node = node().await;
    let core = node.plugin(CORE, 2).await;
    core.refuse(true);
    node.run(pod("p", &[(CORE, 2)]));
    let refused = node.phase("p", "Failed").await;
    assert!(
        refused["status"]["message"]
            .as_str()
            .expect("message")
            .contains("rpc error: code = FailedPrecondition desc = refused")
    );
    core.refuse(false);
    node.run(pod("q", &[(CORE, 2)]));
    node.phase("q", "Running").await;
}

#[tokio::test]
async fn init_containers_leave_their_ids_and_sidecars_keep_theirs() {
    let node = node().await;
    let _core = node.plugin(CORE, 6).await;
    let mut many = pod("p", &[(CORE, 3)]);
    let mut sidecar = container("side", &[(CORE, 1)]);
    sidecar["restartPolicy"] = "Always".into();
    many["spec"]["initContainers"] =
        json!([container("first", &[(CORE, 2)]), sidecar, container("second", &[(CORE, 1)])]);
    many["spec"]["containers"].as_array_mut().expect("list").push(container("small", &[(CORE, 1)]));
    node.run(many);
    node.phase("p", "Running").await;
    let [first, side, second, main, small] =
        ["first", "side", "second", "main", "small"].map(|name| node.ids("p", name, CORE));
    // The sidecar and the second init container each take one of the first one's two; the sidecar keeps it.
    assert!(side.is_subset(&first));
    assert!(second.is_subset(&first) && second.is_disjoint(&side));
    assert!(second.is_subset(&main), "what init containers leave is used first");
    assert!(main.is_disjoint(&side) && small.is_disjoint(&main) && small.is_disjoint(&side));
    assert_eq!((main.len(), small.len()), (3, 1));
    let asked: Vec<(String, Vec<String>, usize)> = node
        .kubelet
        .calls()
        .into_iter()
        .filter_map(|call| match call {
            Call::Preferred { container, must_include, size, .. } => Some((container, must_include, size)),
            _ => None,
        })
        .collect();
    let left: Vec<String> = second.into_iter().collect();
    assert_eq!(
        asked,
        [("first".to_owned(), vec![], 2), ("main".to_owned(), left, 3), ("small".to_owned(), vec![], 1)],
        "nobody is asked about ids that are taken over"
    );
    let state = |name: &str| node.kubelet.container("ns", "p", name).expect("container").state;
    assert_eq!((state("first"), state("side")), (ContainerState::Finished, ContainerState::Running));
}

#[tokio::test]
async fn allocations_follow_bindings_one_pod_at_a_time_and_starts_come_in_between() {
    let node = node_with(|config| config.seed = 7).await;
    let core = node.plugin(CORE, 40).await;
    let memory = node.plugin(MEMORY, 40).await;
    node.server.hold_watch("pods", Watchers::All).expect("hold");
    let order: Vec<String> = (0..12).map(|index| format!("p{:02}", (index * 5) % 12)).collect();
    for name in &order {
        node.server.create("pods", pod(name, &[(CORE, 1), (MEMORY, 2)])).expect("pod");
    }
    for name in order.iter().rev() {
        node.server.bind("ns", name, "n").expect("bind");
    }
    node.server.release_watch("pods").expect("release");
    for name in &order {
        node.phase(name, "Running").await;
    }
    let calls = node.kubelet.calls();
    let allocated: Vec<(&str, &str)> = calls
        .iter()
        .filter_map(|call| match call {
            Call::Allocate { pod, resource, .. } => Some((pod.as_str(), resource.as_str())),
            _ => None,
        })
        .collect();
    let pods: Vec<&str> = allocated.chunks(2).map(|pair| pair[0].0).collect();
    assert!(allocated.chunks(2).all(|pair| pair[0].0 == pair[1].0), "all calls for a pod come together");
    assert_eq!(pods, order.iter().rev().map(|name| format!("ns/{name}")).collect::<Vec<_>>());
    let firsts: BTreeSet<&str> = allocated.chunks(2).map(|pair| pair[0].1).collect();
    assert_eq!(firsts.len(), 2, "resources come in random order");
    let last = calls.iter().rposition(|call| matches!(call, Call::Allocate { .. })).expect("allocated");
    let first = calls.iter().position(|call| matches!(call, Call::PreStart { .. })).expect("started");
    assert!(first < last, "starts come between allocations");
    for plugin in [core, memory] {
        let starts = plugin.log.lock().expect("log").iter().filter(|call| call.starts_with("pre_start")).count();
        assert_eq!(starts, 12);
    }
}

#[tokio::test]
async fn a_start_that_fails_is_tried_again_and_a_restart_asks_only_pre_start() {
    let node = node_with(|config| config.start_retry = Duration::from_millis(5)).await;
    let core = node.plugin(CORE, 2).await;
    core.fail_starts(2);
    node.run(pod("p", &[(CORE, 1)]));
    node.phase("p", "Running").await;
    let found = node.kubelet.container("ns", "p", "main").expect("container");
    assert_eq!((found.starts, found.start_errors.len()), (1, 2));
    node.kubelet.restart_container("ns", "p", "main").await.expect("restart");
    assert_eq!(node.kubelet.container("ns", "p", "main").expect("container").starts, 2);
    let log = core.log.lock().expect("log").clone();
    let count = |name: &str| log.iter().filter(|call| call.starts_with(name)).count();
    assert_eq!((count("allocate"), count("pre_start")), (1, 4));
}

#[tokio::test]
async fn a_restart_removes_sockets_keeps_containers_and_takes_waiting_pods_in_a_batch() {
    let node = node().await;
    let core = node.plugin(CORE, 8).await;
    node.run(pod("old", &[(CORE, 2)]));
    node.phase("old", "Running").await;
    let before = node.ids("old", "main", CORE);
    let dir = node.kubelet.config().device_plugins_dir.clone();
    std::fs::write(dir.join("kubelet_internal_checkpoint"), "{}").expect("write");
    node.kubelet.stop().await;
    core.wait_stream_end().await;
    for name in ["a", "b", "c"] {
        node.run(pod(name, &[(CORE, 2)]));
    }
    node.kubelet.restart().await.expect("restart");
    let left: BTreeSet<String> = std::fs::read_dir(&dir)
        .expect("dir")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
        .collect();
    assert_eq!(left, BTreeSet::from(["kubelet.sock", "kubelet_internal_checkpoint"].map(String::from)));
    node.amounts(CORE, "0", "0").await;
    assert_eq!(node.kubelet.containers().len(), 1, "new pods wait for their plugin");
    let again = node.plugin(CORE, 8).await;
    for name in ["a", "b", "c"] {
        node.phase(name, "Running").await;
        assert!(node.ids(name, "main", CORE).is_disjoint(&before));
    }
    assert_eq!(node.ids("old", "main", CORE), before);
    let log = again.log.lock().expect("log").clone();
    let count = |name: &str| log.iter().filter(|call| call.starts_with(name)).count();
    assert_eq!((count("allocate"), count("pre_start")), (3, 3), "the running container is left alone");
}

#[tokio::test]
async fn an_admission_and_a_start_that_a_restart_cut_short_are_completed() {
    let node = node().await;
    let core = node.plugin(CORE, 4).await;
    let memory = node.plugin(MEMORY, 4).await;
    memory.fail_starts(usize::MAX);
    node.run(pod("started", &[(MEMORY, 1)]));
    node.kubelet
        .wait_for(SOON, |all| all.iter().any(|one| !one.start_errors.is_empty()).then_some(()))
        .await
        .expect("failing");
    let gate = memory.hold_allocates();
    node.run(pod("admitted", &[(CORE, 1), (MEMORY, 1)]));
    gate.wait_held().await;
    node.kubelet.stop().await;
    core.wait_stream_end().await;
    memory.wait_stream_end().await;
    gate.open();
    node.kubelet.restart().await.expect("restart");
    let core = node.plugin(CORE, 4).await;
    let memory = node.plugin(MEMORY, 4).await;
    node.phase("started", "Running").await;
    node.phase("admitted", "Running").await;
    assert_eq!((node.ids("admitted", "main", CORE).len(), node.ids("admitted", "main", MEMORY).len()), (1, 1));
    let count = |plugin: &Plugin, name: &str| {
        plugin.log.lock().expect("log").iter().filter(|call| call.starts_with(name)).count()
    };
    assert_eq!((count(&core, "pre_start"), count(&memory, "pre_start")), (1, 2));
    assert_eq!(count(&memory, "allocate"), 1, "only for the pod whose Allocate had no answer");
}

#[tokio::test]
async fn pods_without_a_plugin_can_be_taken_as_the_real_kubelet_does() {
    let node = node_with(|config| config.reject_unregistered = true).await;
    node.run(pod("early", &[(CORE, 1)]));
    node.phase("early", "Running").await;
    assert!(
        node.kubelet.container("ns", "early", "main").expect("container").resources.is_empty(),
        "it runs without devices"
    );
    let core = node.plugin(CORE, 2).await;
    core.stop().await;
    node.amounts(CORE, "2", "0").await;
    node.run(pod("late", &[(CORE, 1)]));
    let refused = node.phase("late", "Failed").await;
    assert_eq!(
        refused["status"]["message"],
        format!(
            "Pod was rejected: Allocate failed due to no healthy devices present; cannot allocate unhealthy devices {CORE}, which is unexpected"
        )
    );
}

#[tokio::test]
async fn a_new_registration_replaces_the_old_one() {
    for stale_disconnect in [false, true] {
        let node = node_with(|config| config.stale_disconnect = stale_disconnect).await;
        let old = node.plugin(CORE, 2).await;
        let _new = node.plugin(CORE, 5).await;
        node.amounts(CORE, "5", "5").await;
        old.stop().await;
        if stale_disconnect {
            node.amounts(CORE, "5", "0").await;
        } else {
            node.run(pod("p", &[(CORE, 5)]));
            node.phase("p", "Running").await;
        }
    }
}

#[tokio::test]
async fn pod_resources_say_what_containers_hold() {
    let node = node().await;
    let core = node.plugin(CORE, 3).await;
    node.run(pod("p", &[(CORE, 2)]));
    node.phase("p", "Running").await;
    core.set_health("core-0", false);
    node.amounts(CORE, "3", "2").await;
    let channel = channel(&node.kubelet.config().pod_resources_socket()).await;
    let mut client = PodResourcesListerClient::new(channel);
    let listed = client.list(ListPodResourcesRequest {}).await.expect("list").into_inner().pod_resources;
    let request = GetPodResourcesRequest { pod_name: "p".into(), pod_namespace: "ns".into() };
    let got = client.get(request).await.expect("get").into_inner().pod_resources.expect("pod");
    assert_eq!(listed, std::slice::from_ref(&got));
    let devices = &got.containers[0].devices[0];
    assert_eq!(devices.resource_name, CORE);
    assert_eq!(devices.device_ids.iter().cloned().collect::<BTreeSet<_>>(), node.ids("p", "main", CORE));
    let all =
        client.get_allocatable_resources(AllocatableResourcesRequest {}).await.expect("allocatable").into_inner();
    assert_eq!(all.devices.len(), 3, "unhealthy ones too");
    let request = GetPodResourcesRequest { pod_name: "q".into(), pod_namespace: "ns".into() };
    client.get(request).await.expect_err("no such pod");
}

#[tokio::test]
async fn a_socket_path_that_does_not_fit_is_refused() {
    let server = ApiServer::start().await.expect("start");
    let long = std::env::temp_dir().join("x".repeat(120));
    let refused = Kubelet::start(KubeletConfig::new("n", server.url(), long)).await.expect_err("too long");
    assert!(refused.to_string().contains("at most 107 are possible"), "{refused}");
}
