//! Kubernetes has to be new enough.

use std::time::Duration;

use kerf_runtime::version::CONDITION;
use kerf_testkit::api::{Action, ApiServer, Fault};

use crate::fixture::{PATIENCE, World, config, node, pod, share, started};

async fn api(version: &str) -> ApiServer {
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 1, 15_360)).unwrap();
    api.set_version(version);
    api
}

#[tokio::test]
async fn under_an_older_one_nothing_is_placed_until_it_is_upgraded() {
    let world = started(api("v1.33.9-gke.34").await, config()).await;
    let asked = world.api.inject(Fault::new("get", "version", Action::Delay(Duration::ZERO)));
    let twice = async {
        while asked.hits() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, twice).await.expect("its first answer did not do");
    assert!(world.extender.unready().iter().any(|unmet| unmet == CONDITION));
    let p = world.api.create("pods", pod("p", share("50", "10"))).unwrap();
    let refused = world.client.filter(&p, &world.nodes()).await.unwrap_err().to_string();
    assert!(refused.contains("not ready: Kubernetes 1.34 or later"), "{refused}");
    assert!(world.bind(&p, "a").await.unwrap_err().contains("1.34"));
    assert!(world.api.writes().is_empty());
    world.api.set_version("v1.34.0-gke.1");
    tokio::time::timeout(PATIENCE, world.extender.ready()).await.unwrap();
    world.bind(&p, "a").await.unwrap();
}

#[tokio::test]
async fn one_that_does_not_answer_yet_is_asked_again_and_one_that_may_not_be_asked_will_do() {
    for (status, version) in [(503, "v1.36.3+k3s1"), (403, "v1.20.0"), (404, "v1.34.1")] {
        let api = api(version).await;
        let fault = api.inject(Fault::new("get", "version", Action::Status(status)).times(1));
        let world = World::on(api, config()).await;
        assert_eq!((fault.hits(), world.extender.unready()), (1, vec![]), "{status}");
    }
    World::on(api("a fork of ours").await, config()).await;
}
