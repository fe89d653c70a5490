use kerf::annotation::Keys;
use kerf::ids::PodRef;
use kerf_testkit::api::{Action, ApiServer, Fault};
use serde_json::Value;

use super::*;
use crate::base::counters::Counters;

async fn cluster() -> (ApiServer, Cluster, Counters) {
    let server = ApiServer::start().await.unwrap();
    let client = kube::Client::try_from(kube::Config::new(server.url().parse().unwrap())).unwrap();
    let counters = Counters::new(&prometheus::Registry::new()).unwrap();
    let cluster = Cluster::new(client, "n".into(), Keys::default(), counters.api_errors.clone());
    (server, cluster, counters)
}

fn queue(pods: &[&str]) -> EventQueue {
    let mut events = EventQueue::new(8);
    for pod in pods {
        let about = About::Pod(PodRef::new("default", *pod), "uid".into());
        events.push(about, EventText::warning("GPUMemoryAboveShare", "more".into()));
    }
    events
}

fn node_event(events: &mut EventQueue, name: &str) {
    events.push(About::Node(name.into()), EventText::warning("GPUUnhealthy", "broken".into()));
}

/// A name in each written event, the first one first.
fn in_order(server: &ApiServer, name: impl Fn(&Value) -> &Value) -> Vec<String> {
    let version = |event: &Value| event["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    let mut events = server.list("events").unwrap();
    events.sort_by_key(|event| version(event));
    events.iter().map(|event| name(event).as_str().unwrap().to_owned()).collect()
}

/// Whom the written events are about.
fn written(server: &ApiServer) -> Vec<String> {
    in_order(server, |event| &event["involvedObject"]["name"])
}

#[tokio::test]
async fn an_event_that_fails_holds_back_no_other_pods() {
    let (server, cluster, _) = cluster().await;
    let mut events = queue(&["a", "b", "c"]);
    server.inject(Fault::new("create", "events", Action::Status(500)).times(1));
    events.send(&cluster).await.unwrap_err();
    events.send(&cluster).await.unwrap();
    assert_eq!(written(&server), ["b", "c", "a"]);
}

#[tokio::test]
async fn events_about_the_node_keep_their_order() {
    let (server, cluster, _) = cluster().await;
    let mut events = EventQueue::new(8);
    node_event(&mut events, "first");
    node_event(&mut events, "second");
    server.inject(Fault::new("create", "events", Action::Status(500)).times(1));
    events.send(&cluster).await.unwrap_err();
    events.send(&cluster).await.unwrap();
    assert_eq!(in_order(&server, |event| &event["metadata"]["name"]), ["n.first", "n.second"]);
}

#[tokio::test]
async fn what_is_not_found_is_given_up_for_a_pod_alone() {
    let (server, cluster, counters) = cluster().await;
    // the pod is gone
    let mut events = queue(&["a", "b"]);
    server.inject(Fault::new("create", "events", Action::Status(404)).times(1));
    events.send(&cluster).await.unwrap();
    assert_eq!(written(&server), ["b"]);
    assert_eq!(counters.api_errors.with_label_values(&["event"]).get(), 1);
    // a Node is there as long as its plugin runs: the path is missing for a while
    let mut events = EventQueue::new(8);
    node_event(&mut events, "broken");
    server.inject(Fault::new("create", "events", Action::Status(404)).times(1));
    events.send(&cluster).await.unwrap_err();
    events.send(&cluster).await.unwrap();
    assert_eq!(written(&server), ["b", "n"]);
}

#[tokio::test]
async fn the_oldest_of_too_many_is_dropped() {
    let (server, cluster, _) = cluster().await;
    let pods: Vec<String> = (0..10).map(|pod| format!("pod-{pod}")).collect();
    let mut events = queue(&pods.iter().map(String::as_str).collect::<Vec<_>>());
    events.send(&cluster).await.unwrap();
    assert_eq!(written(&server), pods[2..]);
}
