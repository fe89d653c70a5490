//! Restarts of the extender, and watches that break.

use kerf::annotation::Keys;
use kerf::ids::{NodeName, PodUid};
use kerf::k8s;
use kerf::units::Timestamp;
use kerf_extender::clock::Clock;
use kerf_extender::cluster::Cluster;
use kerf_extender::config::Config;
use kerf_testkit::api::{Action, ApiServer, Fault};
use kerf_testkit::scheduler::{ExtenderClient, ExtenderConfig};

use crate::fixture::{PATIENCE, World, client_of, config, node, share, started};

fn commitments(world: &World) -> Vec<String> {
    let nodes = world.extender.cluster().snapshot();
    nodes
        .iter()
        .flat_map(|n| n.ledger.commitments().iter().map(move |(uid, c)| format!("{} {uid} {:?}", n.name, c.held)))
        .collect()
}

#[tokio::test]
async fn a_restart_knows_what_the_last_life_knew() {
    let world = World::new([node("a", 2, 15_360), node("b", 2, 15_360)]).await;
    for number in 0..6 {
        let pod = world.pod(&format!("p{number}"), share("60", "10")).await;
        let nodes = world.client.filter(&pod, &world.nodes()).await.unwrap().nodes;
        if let Some(node) = nodes.first() {
            world.bind(&pod, node).await.unwrap();
        }
    }
    let before = commitments(&world);
    assert_eq!(before.len(), 4);
    let world = World::on(world.kill().await, config()).await;
    assert_eq!(commitments(&world), before);
}

#[tokio::test]
async fn it_is_not_ready_before_both_lists_are_complete() {
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 1, 15_360)).unwrap();
    let held = api.inject(Fault::new("list", "pods", Action::Hold));
    let tasks = kerf_runtime::shutdown::Tasks::default();
    let extender = kerf_extender::start(&config(), client_of(&api).await, tasks).await.unwrap();
    held.wait_hits(1, PATIENCE).await.unwrap();
    let readyz = format!("http://{}/readyz", extender.listening().metrics);
    let answer = reqwest::get(&readyz).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("pods listed"));
    // earlier calls are refused: every card looks free
    let url = format!("http://{}/scheduler", extender.address());
    let client = ExtenderClient::new(ExtenderConfig::new(&url, &["inspur.com/vcuda-core"])).unwrap();
    let pod = api.create("pods", crate::fixture::pod("p", share("50", "10"))).unwrap();
    let nodes = api.list("nodes").unwrap();
    let refused = client.filter(&pod, &nodes).await.unwrap_err().to_string();
    assert!(refused.contains("not ready: ") && refused.contains("pods listed"), "{refused}");
    held.release();
    held.remove();
    tokio::time::timeout(PATIENCE, extender.ready()).await.unwrap();
    assert_eq!(reqwest::get(&readyz).await.unwrap().status(), 200);
}

/// The old scheduler's filter has been answered, and it binds only after the restart.
#[tokio::test]
async fn a_card_that_a_record_keeps_stays_kept_whichever_list_comes_first() {
    for (late, first) in [("nodes", "pods listed"), ("pods", "nodes listed")] {
        let world = World::legacy([node("a", 1, 15_360)]).await;
        let placed = world.pod("placed", share("60", "20")).await;
        assert_eq!(world.client.predicates(&placed, &world.nodes()).await.unwrap().nodes, ["a"]);
        let api = world.kill().await;
        let held = api.inject(Fault::new("list", late, Action::Hold));
        let world = started(api, Config { legacy: true, ..config() }).await;
        let listed = async {
            while world.extender.unready().iter().any(|unmet| unmet == first) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, listed).await.unwrap();
        held.wait_hits(1, PATIENCE).await.unwrap();
        held.remove();
        tokio::time::timeout(PATIENCE, world.extender.ready()).await.unwrap();
        assert_eq!(world.used("a"), [600], "{late} came late");
        let other = world.pod("other", share("60", "20")).await;
        assert!(
            world.client.predicates(&other, &world.nodes()).await.unwrap().nodes.is_empty(),
            "{late} came late"
        );
        world.api.bind("default", "placed", "a").unwrap();
        let observed = |world: &World| {
            let nodes = world.extender.cluster().snapshot();
            nodes[0].ledger.commitments().values().all(|known| known.state.as_str() == "observed")
        };
        world.until("observed", observed).await;
        assert_eq!(world.used("a"), [600], "{late} came late");
    }
}

/// Whoever may write on a pod can name any node in its record.
#[tokio::test]
async fn a_record_of_a_node_that_does_not_exist_leaves_nothing_behind() {
    let elsewhere = World::legacy([node("gone", 1, 15_360)]).await;
    let placed = elsewhere.pod("p", share("60", "20")).await;
    assert_eq!(elsewhere.client.predicates(&placed, &elsewhere.nodes()).await.unwrap().nodes, ["gone"]);
    let object = elsewhere.api.get("pods", "default", "p").unwrap();
    let keys = Keys::default();
    let seen = |cluster: &Cluster| {
        let pod = serde_json::from_value((*object).clone()).unwrap();
        cluster.apply_pod(k8s::pod(&pod, &keys).unwrap(), &Clock::default());
    };
    let (uid, gone) = (PodUid::from(placed["metadata"]["uid"].as_str().unwrap()), NodeName::from("gone"));
    type End = fn(&Cluster, &PodUid, &NodeName);
    let ends: [(&str, End); 2] = [
        ("its time passes", |cluster, uid, node| assert!(cluster.expire(node, uid, Timestamp(u64::MAX)))),
        ("it is placed anew", |cluster, uid, node| assert!(cluster.forget(node, uid))),
    ];
    for (what, end) in ends {
        let cluster = Cluster::default();
        seen(&cluster);
        assert_eq!(cluster.snapshot().len(), 1, "the node may be listed later");
        end(&cluster, &uid, &gone);
        assert!(cluster.snapshot().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn deletions_missed_by_a_broken_watch_are_found_by_the_next_list() {
    let world = World::new([node("a", 2, 15_360), node("b", 1, 15_360)]).await;
    let pod = world.pod("p", share("60", "10")).await;
    world.bind(&pod, "a").await.unwrap();
    let held = world.api.inject(Fault::new("watch", "*", Action::Hold));
    world.api.break_watches();
    held.wait_hits(2, PATIENCE).await.unwrap();
    world.api.force_delete("pods", "default", "p").unwrap();
    world.api.force_delete("nodes", "", "b").unwrap();
    world.api.compact();
    held.remove();
    held.release();
    world.until("freed", |w| w.used("a") == [0, 0] && w.extender.cluster().snapshot().len() == 1).await;
}

#[tokio::test]
async fn the_end_waits_for_no_answer_about_bindings_in_doubt() {
    const DOUBTS: u64 = 3;
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 4, 15_360)).unwrap();
    let world = World::on(api, Config { api_timeout: PATIENCE, ..config() }).await;
    world.api.inject(Fault::new("create", "pods/binding", Action::DropBefore).times(DOUBTS));
    world.api.inject(Fault::new("get", "pods", Action::DropBefore).times(DOUBTS));
    for number in 0..DOUBTS {
        let p = world.pod(&format!("p{number}"), share("100", "")).await;
        let uid = PodUid::from(p["metadata"]["uid"].as_str().unwrap());
        world.until("seen", |w| w.extender.cluster().is_pending(&uid)).await;
        assert!(world.bind(&p, "a").await.is_err());
    }
    let asked = world.api.inject(Fault::new("get", "pods", Action::Hold));
    asked.wait_hits(1, PATIENCE).await.unwrap();
    let (ended, _api) = world.end().await;
    assert!(ended < PATIENCE, "{ended:?}");
}
