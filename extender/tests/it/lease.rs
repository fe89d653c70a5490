//! Which of two replicas is in use.

use std::time::Duration;

use kerf::annotation::Keys;
use kerf_extender::config::Config;
use kerf_extender::start;
use kerf_runtime::shutdown::Tasks;
use kerf_testkit::api::{Action, ApiServer, Fault};
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
