//! Which of two replicas is in use.

use std::time::Duration;

use kerf::annotation::Keys;
use kerf_extender::config::Config;
use kerf_extender::start;
use kerf_runtime::shutdown::Tasks;
use kerf_testkit::api::{Action, ApiServer, Fault, Watchers};
use kerf_testkit::scheduler::{ExtenderClient, ExtenderConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{PATIENCE, World, binding, client_of, config, node, share};

fn lease(holder: &str, renewed: &str) -> Value {
    json!({ "metadata": { "namespace": "kerf-system", "name": "kerf-scheduler" },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 600, "renewTime": renewed } })
}

async fn world(host: &str) -> World {
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 1, 15_360)).unwrap();
    let scheduler_lease = Some("kerf-system/kerf-scheduler".parse().unwrap());
    World::on(api, Config { scheduler_lease, host: host.to_owned(), ..config() }).await
}

async fn until(world: &World, start: &str, active: u8) {
    let told = async {
        loop {
            let (readyz, metrics) = (world.text("/readyz").await, world.text("/metrics").await);
            if readyz.starts_with(start) && metrics.contains(&format!("\nkerf_extender_active {active}\n")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, told).await.is_err() {
        panic!("never {start}: {}", world.text("/readyz").await);
    }
}

#[tokio::test]
async fn a_replica_says_whether_the_scheduler_beside_it_is_the_elected_one() {
    let world = world("kerf-scheduler-1").await;
    until(&world, "ok, lease kerf-system/kerf-scheduler not seen yet", 0).await;
    world.api.create("leases", lease("kerf-scheduler-0_5f1e", "2026-01-01T00:00:01.000000Z")).unwrap();
    // ready all the same: what it knows is needed when the other ends
    until(&world, "ok, standby: kerf-scheduler-0 holds the lease", 0).await;
    let own = lease("kerf-scheduler-1_77aa", "2026-01-01T00:00:02.000000Z");
    world.api.patch("leases", "kerf-system", "kerf-scheduler", &own).unwrap();
    until(&world, "ok, active: ", 1).await;
    let other = json!({ "metadata": { "namespace": "kerf-system", "name": "kube-scheduler" },
                        "spec": { "holderIdentity": "x_1", "leaseDurationSeconds": 600 } });
    world.api.create("leases", other).unwrap();
    let given_back = lease("", "2026-01-01T00:00:03.000000Z");
    world.api.patch("leases", "kerf-system", "kerf-scheduler", &given_back).unwrap();
    until(&world, "ok, standby: nobody holds the lease", 0).await;
}

#[tokio::test]
async fn without_a_lease_nothing_is_said_of_it() {
    let world = World::new([node("a", 1, 15_360)]).await;
    assert_eq!(world.text("/readyz").await, "ok\n");
    assert!(!world.text("/metrics").await.contains("kerf_extender_active"));
}

/// One replica gives the lease back while a binding that it has sent is still to be written; the other one is elected and
/// is asked for another pod at once.
#[tokio::test]
async fn what_the_last_leader_has_sent_is_waited_for() {
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 1, 15_360)).unwrap();
    api.create("leases", lease("kerf-scheduler-0_5f1e", "2026-01-01T00:00:01.000000Z")).unwrap();
    let replica = |host: &str| Config {
        scheduler_lease: Some("kerf-system/kerf-scheduler".parse().unwrap()),
        host: host.to_owned(),
        write_timeout: Duration::from_secs(2),
        scheduler_timeout: Duration::from_secs(5),
        ..config()
    };
    let world = World::on(api, replica("kerf-scheduler-1")).await;
    until(&world, "ok, standby: kerf-scheduler-0 holds the lease", 0).await;
    let tasks = Tasks::new(CancellationToken::new());
    let last = start(&replica("kerf-scheduler-0"), client_of(&world.api).await, tasks).await.unwrap();
    tokio::time::timeout(PATIENCE, last.ready()).await.unwrap();
    let keys = Keys::default();
    let readyz = format!("http://{}/readyz", last.listening().metrics);
    let active = async {
        while !reqwest::get(&readyz).await.unwrap().text().await.unwrap().starts_with("ok, active") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, active).await.expect("active");
    let url = format!("http://{}/scheduler", last.address());
    let last = ExtenderClient::new(ExtenderConfig::new(&url, &[&keys.core, &keys.memory])).unwrap();

    let (first, second) =
        (world.pod("first", share("100", "0")).await, world.pod("second", share("100", "0")).await);
    let slow = world.api.inject(Fault::new("create", "pods/binding", Action::Hold).times(1));
    let args = binding(&first, "a");
    let handover = async {
        slow.wait_hits(1, PATIENCE).await.unwrap();
        let holders = ["", "kerf-scheduler-1_77aa"];
        for (holder, renewed) in holders.iter().zip(["2026-01-01T00:00:02.000000Z", "2026-01-01T00:00:03.000000Z"])
        {
            world.api.patch("leases", "kerf-system", "kerf-scheduler", &lease(holder, renewed)).unwrap();
        }
        let nodes = world.nodes();
        let written = async {
            until(&world, "ok, active: ", 1).await;
            slow.release();
        };
        tokio::join!(world.client.filter(&second, &nodes), written).0
    };
    let (bound, filtered) = tokio::join!(last.bind(&args), handover);
    bound.unwrap();
    assert_eq!(filtered.unwrap().nodes, Vec::<String>::new());
}

/// Bind and preempt are for the replica in use: another one has an old view, and its scheduler does not call.
#[tokio::test]
async fn only_the_replica_in_use_binds_and_evicts() {
    let world = world("kerf-scheduler-1").await;
    let placed = world.pod("p", share("100", "0")).await;
    let preempt = async || {
        let body = json!({ "Pod": &*placed, "NodeNameToMetaVictims": { "a": { "Pods": [{ "UID": "x" }] } } });
        let answer =
            reqwest::Client::new().post(format!("{}/preempt", world.url)).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert!(world.bind(&placed, "a").await.unwrap_err().contains("not seen yet"));
    world.api.create("leases", lease("kerf-scheduler-0_5f1e", "2026-01-01T00:00:01.000000Z")).unwrap();
    until(&world, "ok, standby: kerf-scheduler-0 holds the lease", 0).await;
    assert!(world.bind(&placed, "a").await.unwrap_err().contains("kerf-scheduler-0 holds the lease"));
    let (status, text) = preempt().await;
    assert!(status == 503 && text.contains("kerf-scheduler-0 holds the lease"), "{status} {text}");
    assert!(world.api.writes().is_empty());
    assert_eq!(world.used("a"), [0]);
    let own = lease("kerf-scheduler-1_77aa", "2026-01-01T00:00:02.000000Z");
    world.api.patch("leases", "kerf-system", "kerf-scheduler", &own).unwrap();
    until(&world, "ok, active: ", 1).await;
    assert_eq!(preempt().await.0, 200);
    world.bind(&placed, "a").await.unwrap();
}

/// The lease is lost while the pod is being read.
#[tokio::test]
async fn the_lease_is_looked_at_again_before_the_write() {
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 1, 15_360)).unwrap();
    api.create("leases", lease("kerf-scheduler-1_77aa", "2026-01-01T00:00:01.000000Z")).unwrap();
    let scheduler_lease = Some("kerf-system/kerf-scheduler".parse().unwrap());
    let (api_timeout, scheduler_timeout) = (PATIENCE, 4 * PATIENCE);
    let host = "kerf-scheduler-1".to_owned();
    let world = World::on(api, Config { scheduler_lease, host, api_timeout, scheduler_timeout, ..config() }).await;
    until(&world, "ok, active: ", 1).await;
    // unknown to its watch, so it asks for it
    world.api.hold_watch("pods", Watchers::All).unwrap();
    let unseen = world.api.create("pods", crate::fixture::pod("p", share("100", "0"))).unwrap();
    let read = world.api.inject(Fault::new("get", "pods", Action::Hold).times(1));
    let handover = async {
        read.wait_hits(1, PATIENCE).await.unwrap();
        let other = lease("kerf-scheduler-0_5f1e", "2026-01-01T00:00:02.000000Z");
        world.api.patch("leases", "kerf-system", "kerf-scheduler", &other).unwrap();
        until(&world, "ok, standby: kerf-scheduler-0", 0).await;
        read.release();
    };
    let (bound, ()) = tokio::join!(world.bind(&unseen, "a"), handover);
    let error = bound.unwrap_err();
    assert!(error.contains("kerf-scheduler-0 holds the lease"), "{error}");
    assert_eq!(world.used("a"), [0]);
}
