//! An API server that refuses the plugin, hangs or is away: pods wait instead of failing, and the plugin recovers
//! by itself.

use std::time::{Duration, Instant};

use crate::stage::{CORE, MEMORY, SOON, Stage};
use kerf_testkit::api::{Action, Fault, Injected, Watchers};

impl Stage {
    /// With this grace period before the devices are withdrawn.
    async fn withdrawing_after(grace: &str) -> Self {
        let mut stage = Self::new().await;
        stage.flags = vec![format!("--withdraw-after={grace}")];
        stage
    }

    /// A fault for requests of the plugin, and not for kubelet's.
    fn against_plugin(&self, verb: &str, resource: &str, action: Action) -> Injected {
        self.server.inject(Fault::new(verb, resource, action).of(Watchers::Others))
    }

    async fn withdrawn(&self) {
        self.allocatable(CORE, "0").await;
        self.allocatable(MEMORY, "0").await;
    }

    async fn works(&self, name: &str) {
        self.registered().await;
        self.until("/readyz", |status, _| status == 200).await;
        self.place(name, 9, &[("main", 30, 10, "GPU-b")]);
        self.confirmed(name).await;
    }
}

#[tokio::test]
async fn a_plugin_that_is_refused_is_not_ready_and_offers_nothing() {
    let mut stage = Stage::withdrawing_after("300ms").await;
    stage.start_plugin().await;
    stage.works("before").await;
    for (action, reason) in [
        (Action::Status(401), "pods: 401 Unauthorized for "),
        (Action::Status(403), "pods: 403 Forbidden for "),
        (Action::DropBefore, "pods: cannot be reached ("),
    ] {
        let fault = stage.against_plugin("*", "*", action);
        stage.server.break_watches();
        stage.until("/readyz", |status, text| status == 503 && text.contains(reason)).await;
        stage.withdrawn().await;
        fault.remove();
        stage.registered().await;
        stage.until("/readyz", |status, _| status == 200).await;
    }
    stage.until("/metrics", |_, text| text.contains("kerf_plugin_watch_age_seconds{kind=\"pods\"}")).await;
    stage.works("after").await;
}

#[tokio::test]
async fn a_plugin_that_is_refused_from_the_start_offers_nothing_until_it_is_served() {
    let mut stage = Stage::withdrawing_after("300ms").await;
    let fault = stage.against_plugin("*", "pods", Action::Status(403));
    stage.start_plugin().await;
    stage.kubelet.wait_registered(&[CORE, MEMORY], SOON).await.unwrap();
    stage.until("/readyz", |status, text| status == 503 && text.contains("pods: 403 Forbidden for ")).await;
    stage.withdrawn().await;
    fault.remove();
    stage.works("p").await;
}

#[tokio::test]
async fn a_plugin_whose_first_list_is_never_answered_offers_nothing_until_it_is() {
    let mut stage = Stage::withdrawing_after("300ms").await;
    let fault = stage.against_plugin("list", "pods", Action::Hold);
    stage.start_plugin().await;
    stage.kubelet.wait_registered(&[CORE, MEMORY], SOON).await.unwrap();
    stage.withdrawn().await;
    stage.until("/readyz", |status, text| status == 503 && text.contains("pods")).await;
    fault.remove();
    stage.works("p").await;
}

#[tokio::test]
async fn a_slow_api_server_is_no_reason_to_withdraw() {
    let mut stage = Stage::withdrawing_after("20s").await;
    let _slow = stage.against_plugin("*", "*", Action::Delay(Duration::from_millis(300)));
    stage.start_plugin().await;
    stage.works("p").await;
}

#[tokio::test]
async fn an_allocate_that_is_refused_says_the_true_reason_and_asks_ever_more_rarely() {
    const PODS: u64 = 12;
    let mut stage = Stage::withdrawing_after("10m").await;
    stage.start_plugin().await;
    stage.works("before").await;
    let watches = stage.against_plugin("watch", "*", Action::Status(401));
    let lists = stage.against_plugin("list", "*", Action::Status(401));
    stage.server.break_watches();
    watches.wait_hits(1, SOON).await.unwrap();
    for number in 0..PODS {
        let name = format!("p{number}");
        stage.place(&name, number, &[("main", 10, 4, "GPU-a")]);
        let pod = stage.phase(&name, "Failed").await;
        let message = pod["status"]["message"].as_str().unwrap();
        assert!(message.contains("the API server refuses this plugin: 401 Unauthorized"), "{message}");
    }
    // two for the first, and then after 200, 400, 800 ms, ...
    assert!(lists.hits() < PODS, "{} lists for {PODS} pods", lists.hits());
    // kubelet asks for either resource first
    let counted = |text: &str, resource: &str| -> u64 {
        let name = format!("kerf_plugin_allocations_total{{outcome=\"no-api\",resource=\"{resource}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
    };
    stage.until("/metrics", |_, text| counted(text, "core") + counted(text, "memory") == PODS).await;
    stage.server.clear_faults();
    stage.works("after").await;
}

#[tokio::test]
async fn rights_that_are_taken_while_the_watch_goes_on_stop_nobody() {
    let mut stage = Stage::withdrawing_after("300ms").await;
    stage.start_plugin().await;
    stage.works("before").await;
    let _list = stage.against_plugin("list", "pods", Action::Status(403));
    let _start = stage.against_plugin("watch", "pods", Action::Status(403));
    let write = stage.against_plugin("patch", "*", Action::Status(403));
    stage.place("during", 2, &[("main", 30, 10, "GPU-a")]);
    stage.started("during", "main").await;
    write.wait_hits(1, SOON).await.unwrap();
    stage.until("/readyz", |status, text| status == 503 && text.contains("records: 403 Forbidden for ")).await;
    // the watch does not show this one in time, so it needs a list
    stage.server.hold_watch("pods", Watchers::Others).unwrap();
    stage.place("unseen", 3, &[("main", 20, 5, "GPU-a")]);
    let pod = stage.phase("unseen", "Failed").await;
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.contains("the API server refuses this plugin: 403 Forbidden"), "{message}");
    stage.until("/readyz", |status, text| status == 503 && text.contains("pods: 403 Forbidden for ")).await;
    stage.registered().await;
    stage.server.release_watch("pods").unwrap();
    stage.server.clear_faults();
    stage.confirmed("during").await;
    stage.until("/readyz", |status, _| status == 200).await;
    stage.works("after").await;
}

#[tokio::test]
async fn what_was_not_written_before_the_refusal_is_written_after_it() {
    let mut stage = Stage::withdrawing_after("300ms").await;
    stage.start_plugin().await;
    stage.registered().await;
    stage.until("/readyz", |status, _| status == 200).await;
    let writes = stage.against_plugin("patch", "pods/status", Action::Status(401));
    stage.place("a", 1, &[("main", 30, 10, "GPU-a")]);
    stage.place("b", 2, &[("main", 30, 10, "GPU-b")]);
    stage.started("a", "main").await;
    stage.started("b", "main").await;
    writes.wait_hits(2, SOON).await.unwrap();
    let _all = stage.against_plugin("*", "*", Action::Status(401));
    stage.server.break_watches();
    stage.withdrawn().await;
    stage.server.clear_faults();
    let cards = [
        Stage::recorded(&stage.confirmed("a").await, "main"),
        Stage::recorded(&stage.confirmed("b").await, "main"),
    ];
    assert_ne!(cards[0], cards[1]);
    stage.works("after").await;
}

#[tokio::test]
async fn a_plugin_ends_at_once_however_many_records_the_api_server_does_not_take() {
    let mut stage = Stage::new().await;
    let held = stage.against_plugin("patch", "pods/status", Action::Hold);
    stage.start_plugin().await;
    stage.registered().await;
    // each write has a deadline of seconds
    for number in 0..8 {
        stage.place(&format!("p{number}"), number + 1, &[("main", 10, 4, "GPU-a")]);
    }
    for number in 0..8 {
        stage.started(&format!("p{number}"), "main").await;
    }
    held.wait_hits(1, SOON).await.unwrap();
    tokio::time::timeout(SOON, stage.stop_plugin()).await.expect("the plugin ends");
}

#[tokio::test]
async fn an_inventory_that_is_refused_is_written_ever_more_rarely() {
    let mut stage = Stage::withdrawing_after("10m").await;
    let writes = stage.against_plugin("patch", "nodes/status", Action::Status(403));
    let begun = Instant::now();
    stage.start_plugin().await;
    // of the inventory, and one for the conditions: 500 ms, 1, 2 and 4 s lie between them
    writes.wait_hits(6, SOON).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(5), "six writes within {:?}", begun.elapsed());
    writes.remove();
    stage.works("p").await;
}
