//! Which of two replicas is in use.

use kerf_extender::config::Config;
use kerf_testkit::api::ApiServer;
use serde_json::{Value, json};

use crate::fixture::{PATIENCE, World, config, node};

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
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
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
