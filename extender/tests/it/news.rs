//! An API server that hangs, falls silent or is away: the extender's state becomes old, and its readiness says so.

use std::time::Duration;

use kerf_extender::config::Config;
use kerf_runtime::feed::Patience;
use kerf_testkit::api::{Action, ApiConfig, ApiServer, Fault};

use crate::fixture::{PATIENCE, World, config, node, share};

/// The time between two bookmarks; the limits are far above it, as in production.
const BOOKMARKS: Duration = Duration::from_millis(50);
const STALE: Duration = Duration::from_secs(2);

async fn world(patience: Patience) -> World {
    let settings = ApiConfig { bookmark_every: BOOKMARKS, ..ApiConfig::default() };
    let api = ApiServer::start_with(settings).await.expect("API server");
    api.create("nodes", node("a", 1, 15_360)).expect("node");
    World::on(api, Config { patience, ..config() }).await
}

async fn get(world: &World, path: &str) -> (u16, String) {
    let url = world.url_of(path);
    let answer = reqwest::get(url).await.expect("answered");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

/// Waits until exactly this many conditions are not met.
async fn until(world: &World, unmet: usize) {
    let wait = async {
        while world.extender.unready().len() != unmet {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{:?}", world.extender.unready()));
}

#[tokio::test]
async fn news_that_is_too_old_is_not_decided_by() {
    let world = world(Patience { stale: STALE, ..Patience::default() }).await;
    let pod = world.pod("p", share("60", "10")).await;
    world.until("known", |world| world.used("a") == [0]).await;
    world.api.silence_watches(true);
    until(&world, 2).await;
    let (status, text) = get(&world, "/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains("news of nodes: no news for more than 2 s"), "{text}");
    assert!(text.contains("news of pods: no news for more than 2 s"), "{text}");
    let refused = world.client.filter(&pod, &world.nodes()).await.unwrap_err().to_string();
    assert!(refused.contains("extender is not ready: news of nodes: no news for more than 2 s"), "{refused}");
    let refused = world.bind(&pod, "a").await.unwrap_err();
    assert!(refused.contains("extender is not ready"), "{refused}");
    let (_, metrics) = get(&world, "/metrics").await;
    let age = |kind: &str| -> f64 {
        let name = format!("kerf_extender_watch_age_seconds{{kind=\"{kind}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
    };
    assert!(age("pods") > STALE.as_secs_f64() && age("nodes") > STALE.as_secs_f64());
    assert!(metrics.contains("kerf_extender_watch_failures_total{kind=\"pods\"} 0"), "{metrics}");
    world.api.silence_watches(false);
    until(&world, 0).await;
    assert_eq!(world.client.filter(&pod, &world.nodes()).await.unwrap().nodes, ["a"]);
    world.bind(&pod, "a").await.unwrap();
}

#[tokio::test]
async fn a_list_that_hangs_hides_no_deletion_for_long() {
    let world = world(Patience { list: Duration::from_millis(200), ..Patience::default() }).await;
    let pod = world.pod("p", share("60", "10")).await;
    world.bind(&pod, "a").await.unwrap();
    world.until("bound", |world| world.used("a") == [600]).await;
    // the watch is too old when it comes back, the next list is never answered, and the pod is deleted in between
    let never = world.api.inject(Fault::new("list", "pods", Action::Hold).times(1));
    let too_old = world.api.inject(Fault::new("watch", "pods", Action::Status(410)).times(1));
    world.api.break_watches();
    too_old.wait_hits(1, PATIENCE).await.unwrap();
    never.wait_hits(1, PATIENCE).await.unwrap();
    world.api.force_delete("pods", "default", "p").unwrap();
    world.until("its card is free", |world| world.used("a") == [0]).await;
    assert_eq!(never.parked(), 1, "the first is still not answered");
}

#[tokio::test]
async fn a_connection_that_the_network_forgot_hides_no_deletion_for_long() {
    let soon = Duration::from_millis(500);
    let patience = Patience { silence: soon, list: soon, start: soon, ..Patience::default() };
    let world = world(patience).await;
    let pod = world.pod("p", share("60", "10")).await;
    world.bind(&pod, "a").await.unwrap();
    world.until("bound", |world| world.used("a") == [600]).await;
    world.api.freeze_connections();
    world.api.force_delete("pods", "default", "p").unwrap();
    world.until("its card is free", |world| world.used("a") == [0]).await;
    let (_, metrics) = get(&world, "/metrics").await;
    assert!(!metrics.contains("kerf_extender_watch_failures_total{kind=\"pods\"} 0"), "{metrics}");
}
