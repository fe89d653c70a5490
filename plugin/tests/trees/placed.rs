//! Profiles whose pods are placed: steered by the record, true to what kubelet gave. The test plays the extender's
//! part; the system tests have the real one.

use std::collections::BTreeMap;

use kerf::annotation::{self, Keys};
use kerf::plan::{ContainerGrant, CountedDevice, DeviceRef, Grant, Placement, Plan};
use kerf::request::ContainerKind;
use kerf::shares::PerCard;
use kerf_testkit::api::{Action, Fault, Watchers};
use serde_json::{Value, json};

use crate::forest::Forest;
use crate::kubelet::{SOON, Stage};

const SHARED: &str = "deepomatic.com/shared-gpu";
const FLAGS: [&str; 4] = ["-profile=deepomatic", "--placed", "--node-name=n", "-gpu-duplication-factor=4"];
/// The GPUs of tree g, as `/proc` names them.
const CARDS: [&str; 2] = ["GPU-5c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e5f", "GPU-6c0d6a2e-94a5-4e4b-9d2f-0a1b2c3d4e60"];

async fn stage() -> Stage {
    let mut stage = Stage::new(Forest::named("g")).await;
    stage.start(&FLAGS).await;
    stage.allocatable(SHARED, 8).await;
    stage
}

/// The annotations of a pod whose container `main` has this placement: shares of each GPU.
fn record(cards: &[(usize, u32)]) -> Value {
    let counted = |(card, count): &(usize, u32)| CountedDevice {
        device: DeviceRef { id: CARDS[*card].into(), index: u32::try_from(*card).unwrap() },
        count: *count,
        compute: PerCard::new(4).unwrap().compute_of(*count),
    };
    let gpus = Grant::Counted { resource: SHARED.into(), devices: cards.iter().map(counted).collect() };
    let grant = ContainerGrant { container: "main".into(), kind: ContainerKind::App, position: 0, gpus };
    let placement = Placement::new("n", 1, Plan { grants: vec![grant] });
    json!(annotation::write(&placement, &Keys::default()))
}

/// Waits until the node has confirmed the pod. Returns the GPUs of its record, and the ids that kubelet gave.
async fn settled(stage: &Stage, name: &str) -> (BTreeMap<String, u32>, BTreeMap<String, u32>) {
    let container = stage.running(name).await;
    let keys = Keys::default();
    let assigned =
        |pod: Option<&Value>| pod.is_some_and(|pod| pod["metadata"]["annotations"][&keys.gpu_assigned] == "true");
    let pod = stage.server.wait_for_object("pods", "ns", name, SOON, assigned).await.unwrap().unwrap();
    let text = pod["metadata"]["annotations"][&keys.placement].as_str().unwrap();
    let placement = annotation::placement::decode(text).unwrap();
    let Grant::Counted { devices, .. } = &placement.plan.grants[0].gpus else { panic!("{placement:?}") };
    let recorded = devices.iter().map(|one| (format!("nvidia{}", one.device.index), one.count)).collect();
    let mut given: BTreeMap<String, u32> = BTreeMap::new();
    for id in &container.resources[SHARED] {
        *given.entry(id.split("-_-").next().unwrap().to_owned()).or_default() += 1;
    }
    (recorded, given)
}

fn on(cards: &[(usize, u32)]) -> BTreeMap<String, u32> {
    cards.iter().map(|(card, count)| (format!("nvidia{card}"), *count)).collect()
}

#[tokio::test]
async fn the_node_announces_how_many_shares_each_card_has() {
    let stage = stage().await;
    let shown = |node: Option<&Value>| {
        let text = node?["metadata"]["annotations"]["inspur.com/gpu-inventory"].as_str()?;
        annotation::inventory::decode(text).ok()
    };
    let seen = |node: Option<&Value>| shown(node).is_some();
    let node = stage.server.wait_for_object("nodes", "", "n", SOON, seen).await.unwrap();
    let inventory = shown(node.as_deref()).unwrap();
    let offers: Vec<_> = inventory.devices().iter().map(|d| (d.id.as_str(), d.offers[SHARED].get())).collect();
    assert_eq!(offers, CARDS.map(|card| (card, 4)));
    stage.stop().await;
}

#[tokio::test]
async fn a_container_gets_shares_of_the_cards_on_its_record() {
    let stage = stage().await;
    // against the profile's own order, which would take one of each GPU
    for (name, cards) in [("one", &[(1, 2)][..]), ("two", &[(1, 2)]), ("both", &[(0, 3)])] {
        let count: u32 = cards.iter().map(|(_, count)| count).sum();
        stage.create(name, &json!({ SHARED: count.to_string() }), &record(cards));
        assert_eq!(settled(&stage, name).await, (on(cards), on(cards)), "{name}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn what_kubelet_gave_otherwise_or_without_a_record_is_recorded() {
    let mut stage = stage().await;
    stage.create("bare", &json!({ SHARED: "3" }), &json!({}));
    let (recorded, given) = settled(&stage, "bare").await;
    assert_eq!((&recorded, given.values().sum::<u32>()), (&given, 3));
    // all that is left: kubelet asks for no advice, and the record cannot be true
    stage.create("rest", &json!({ SHARED: "5" }), &record(&[(0, 1), (1, 4)]));
    let (recorded, rest) = settled(&stage, "rest").await;
    assert_eq!(recorded, rest);
    let sum = |card: &str| given.get(card).unwrap_or(&0) + rest.get(card).unwrap_or(&0);
    assert_eq!((sum("nvidia0"), sum("nvidia1")), (4, 4));
    // after a restart of the plugin and of kubelet it is the same
    let (plugin, token) = stage.plugins.remove(0);
    token.cancel();
    plugin.finished().await.unwrap();
    stage.kubelet.restart().await.unwrap();
    stage.start(&FLAGS).await;
    stage.allocatable(SHARED, 8).await;
    assert_eq!(settled(&stage, "rest").await, (rest.clone(), rest));
    stage.stop().await;
}

#[tokio::test]
async fn a_plugin_that_comes_late_records_what_was_given_before() {
    let mut stage = Stage::new(Forest::named("g")).await;
    // an earlier version, or one without the flag
    stage.start(&["-profile=deepomatic", "-gpu-duplication-factor=4"]).await;
    stage.allocatable(SHARED, 8).await;
    let before = stage.run("old", json!({ SHARED: "2" })).await;
    let (plugin, token) = stage.plugins.remove(0);
    token.cancel();
    plugin.finished().await.unwrap();
    stage.start(&FLAGS).await;
    let (recorded, given) = settled(&stage, "old").await;
    assert_eq!(recorded, given);
    assert_eq!(before.resources[SHARED].len(), 2);
    stage.stop().await;
}

/// As with `vcuda`: for the resources that the extender places.
#[tokio::test]
async fn the_startup_taint_goes_once_the_node_offers_the_shares() {
    let mut stage = Stage::new(Forest::named("g")).await;
    let taint = |key: &str| json!({ "key": key, "effect": "NoSchedule" });
    let taints = json!([taint("inspur.com/gpu-starting"), taint("example.com/other")]);
    stage.server.patch("nodes", "", "n", &json!({ "spec": { "taints": taints } })).unwrap();
    let kubelet = stage.server.inject(Fault::new("patch", "nodes/status", Action::Hold).of(Watchers::StandIns));
    stage.start(&FLAGS).await;
    let shown = |node: Option<&Value>| {
        node.is_some_and(|node| node["metadata"]["annotations"]["inspur.com/gpu-inventory"].is_string())
    };
    let node = stage.server.wait_for_object("nodes", "", "n", SOON, shown).await.unwrap().unwrap();
    kubelet.wait_hits(1, SOON).await.unwrap();
    assert_eq!(node["spec"]["taints"], taints);
    kubelet.remove();
    let left = json!([taint("example.com/other")]);
    let gone = |node: Option<&Value>| node.is_some_and(|node| node["spec"]["taints"] == left);
    let node = stage.server.wait_for_object("nodes", "", "n", SOON, gone).await.unwrap().unwrap();
    assert_eq!(node["status"]["allocatable"][SHARED], "8");
    stage.stop().await;
}
