//! The scenario files of the domain, over HTTP: `filter`, `prioritize` and `bind` in one cluster, `predicates` in
//! another. Both must come out as the files say, so they agree with each other and with the domain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kerf::annotation::{Keys, placement};
use kerf_scenarios::{Outcome, Scenario};
use serde_json::Value;

use crate::fixture::World;

const DOMAIN: &str = "inspur.com";

/// The scenario with names of its own, so that all fit into one cluster.
fn renamed(scenario: &Scenario) -> Scenario {
    let mut scenario = scenario.clone();
    let prefix = scenario.id.to_lowercase();
    let name = |name: &str| format!("{prefix}-{name}");
    scenario.nodes.iter_mut().for_each(|node| node.name = name(&node.name));
    for pod in &mut scenario.pods {
        (pod.name, pod.node) = (name(&pod.name), name(&pod.node));
    }
    scenario.unfit = scenario.unfit.iter().map(|(node, reason)| (name(node), reason.clone())).collect();
    if let Outcome::Placed { node, .. } = &mut scenario.outcome {
        *node = name(node);
    }
    scenario
}

async fn cluster(scenarios: &[Scenario]) -> World {
    let world = World::legacy(scenarios.iter().flat_map(|s| &s.nodes).map(|node| node.json(DOMAIN))).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let (mut bound, mut promised) = (0, 0);
    for pod in scenarios.iter().flat_map(|s| &s.pods) {
        world.api.create("pods", pod.json(DOMAIN, u64::try_from(now).unwrap())).unwrap();
        let lives = !matches!(pod.phase, "Failed" | "Succeeded");
        bound += usize::from(lives && pod.bound);
        promised += usize::from(lives && !pod.bound && pod.record.iter().any(Option::is_some));
    }
    let count = |w: &World, state: &str| {
        let nodes = w.extender.cluster().snapshot();
        nodes.iter().flat_map(|n| n.ledger.commitments().values()).filter(|c| c.state.as_str() == state).count()
    };
    world.until("all pods seen", |w| count(w, "observed") == bound && count(w, "assumed") == promised).await;
    world
}

fn nodes(world: &World, scenario: &Scenario) -> Vec<Arc<Value>> {
    scenario.nodes.iter().map(|node| world.api.get("nodes", "", &node.name).unwrap()).collect()
}

fn request(world: &World, scenario: &Scenario) -> Arc<Value> {
    let mut pod = scenario.pod_json(DOMAIN);
    if !scenario.request.stored {
        pod["metadata"]["uid"] = "gone".into();
    }
    if scenario.request.stored { world.api.create("pods", pod).unwrap() } else { Arc::new(pod) }
}

/// The card indices that were written on the pod, by container.
fn written(world: &World, scenario: &Scenario) -> BTreeMap<String, Vec<u32>> {
    let pod = world.api.get("pods", "default", &scenario.pod_name()).unwrap();
    let text = pod["metadata"]["annotations"][&Keys::default().placement].as_str().expect("a placement");
    let grants = placement::decode(text).unwrap().plan.grants;
    grants.iter().map(|g| (g.container.to_string(), g.gpus.devices().map(|d| d.index).collect())).collect()
}

#[tokio::test]
async fn filter_prioritize_and_bind_do_what_the_scenarios_say() {
    let scenarios: Vec<Scenario> = kerf_scenarios::all().unwrap().iter().map(renamed).collect();
    let world = cluster(&scenarios).await;
    for scenario in &scenarios {
        let id = &scenario.id;
        let (pod, candidates) = (request(&world, scenario), nodes(&world, scenario));
        let filtered = world.client.filter(&pod, &candidates).await.unwrap();
        let reasons: BTreeMap<String, String> = filtered.failed.into_iter().chain(filtered.unresolvable).collect();
        match &scenario.outcome {
            Outcome::Refused(text) => {
                assert_eq!(filtered.nodes, Vec::<String>::new(), "{id}");
                assert!(
                    reasons.len() == candidates.len() && reasons.values().all(|r| r == text),
                    "{id} {reasons:?}"
                );
            }
            Outcome::EveryNode => assert_eq!(filtered.nodes.len(), candidates.len(), "{id}"),
            Outcome::NoNode => assert_eq!(filtered.nodes, Vec::<String>::new(), "{id}"),
            Outcome::Placed { node, cards } => {
                assert_eq!(filtered.nodes.len() + scenario.unfit.len(), candidates.len(), "{id}");
                let fits =
                    |node: &&Arc<Value>| filtered.nodes.iter().any(|name| node["metadata"]["name"] == **name);
                let left: Vec<Arc<Value>> = candidates.iter().filter(fits).cloned().collect();
                let scores = world.client.prioritize(&pod, &left).await.unwrap();
                assert_eq!(scores.iter().find(|s| s.score == 10).map(|s| &s.host), Some(node), "{id}");
                if scenario.request.stored {
                    world.bind(&pod, node).await.unwrap();
                    assert_eq!(written(&world, scenario), *cards, "{id}");
                } else {
                    assert!(world.bind(&pod, node).await.unwrap_err().contains("gone"), "{id}");
                }
            }
        }
        compare_reasons(scenario, &reasons);
    }
}

#[tokio::test]
async fn predicates_does_what_the_scenarios_say() {
    let scenarios: Vec<Scenario> = kerf_scenarios::all().unwrap().iter().map(renamed).collect();
    let world = cluster(&scenarios).await;
    for scenario in &scenarios {
        let id = &scenario.id;
        let (pod, candidates) = (request(&world, scenario), nodes(&world, scenario));
        let filtered = world.client.predicates(&pod, &candidates).await.unwrap();
        let mut reasons: BTreeMap<String, String> =
            filtered.failed.into_iter().chain(filtered.unresolvable).collect();
        match &scenario.outcome {
            Outcome::EveryNode => assert_eq!(filtered.nodes.len(), candidates.len(), "{id}"),
            Outcome::Refused(_) | Outcome::NoNode => assert_eq!(filtered.nodes, Vec::<String>::new(), "{id}"),
            Outcome::Placed { .. } if !scenario.request.stored => {
                assert_eq!(filtered.nodes, Vec::<String>::new(), "{id}");
                let text = "GPU placement could not be written on the pod";
                assert!(reasons.values().any(|reason| reason == text), "{id} {reasons:?}");
                reasons.retain(|_, reason| reason != text);
            }
            Outcome::Placed { node, cards } => {
                assert_eq!(filtered.nodes, std::slice::from_ref(node), "{id}");
                assert_eq!(written(&world, scenario), *cards, "{id}");
                assert_eq!(reasons.len() + 1, candidates.len(), "{id}");
                reasons.retain(|_, reason| reason != "pod has been placed on another node");
            }
        }
        compare_reasons(scenario, &reasons);
    }
}

/// The reasons are those of the file; where a card is too small, the container's name comes before it.
fn compare_reasons(scenario: &Scenario, reasons: &BTreeMap<String, String>) {
    if matches!(scenario.outcome, Outcome::Refused(_) | Outcome::EveryNode) {
        return;
    }
    let nodes: Vec<&String> = reasons.keys().collect();
    assert_eq!(nodes, scenario.unfit.keys().collect::<Vec<_>>(), "{}", scenario.id);
    for (node, reason) in reasons {
        assert!(reason.ends_with(&scenario.unfit[node]), "{} {node}: {reason}", scenario.id);
    }
}
