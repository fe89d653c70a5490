//! The scenario files against the domain alone: ledgers, planner and rank. The extender's tests run the same
//! files over HTTP.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use kerf::annotation::{self, Keys, Record};
use kerf::device::{Device, Inventory};
use kerf::ids::PodRef;
use kerf::ledger::{Held, NodeLedger, Seen};
use kerf::placement::{Planner, rank};
use kerf::plan::{Placement, Plan};
use kerf::policy::Policy;
use kerf::request::{ContainerKind, GpuRequest, PodRequest, RawAnnotations, RawContainer, RequestError};
use kerf::shares::PerCard;
use kerf::units::{Mib, Timestamp};
use kerf_scenarios::{Container, Kind, Outcome, Pod, Scenario};

const DOMAIN: &str = "inspur.com";
const TIME: u64 = 1_700_000_000_000_000_000;

fn request(containers: &[Container], annotations: &[(String, String)]) -> Result<Option<GpuRequest>, RequestError> {
    let shares: Vec<Vec<(&str, &str)>> = containers
        .iter()
        .map(|c| c.shares.iter().map(|count| (kerf_scenarios::SHARES, count.as_str())).collect())
        .collect();
    let raw = containers.iter().zip(&shares).map(|(container, counted)| RawContainer {
        name: &container.name,
        kind: match container.kind {
            Kind::Init => ContainerKind::Init,
            Kind::Sidecar => ContainerKind::Sidecar,
            Kind::App => ContainerKind::App,
        },
        core: container.core.as_deref(),
        memory: container.memory.as_deref(),
        counted,
    });
    let annotation = |key: &str| annotations.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
    let annotations = RawAnnotations {
        limit: annotation("vcuda-core-limit"),
        policy: annotation("gpu-policy"),
        isolation: annotation("isolation"),
        arrangement: annotation("gpu-shares"),
    };
    GpuRequest::parse(raw, annotations)
}

/// Puts a pod on the node where the scenario has it.
fn settle(ledger: &mut NodeLedger, pod: &Pod) {
    if matches!(pod.phase, "Failed" | "Succeeded") {
        return;
    }
    let asked = Arc::new(request(&pod.containers, &[]).unwrap().unwrap());
    let (uid, name) = (format!("uid-{}", pod.name).into(), PodRef::new("default", pod.name.as_str()));
    let record = annotation::read(&pod.annotations(DOMAIN, TIME), &Keys::default(), &asked);
    match record {
        Record::Placed(placement) if !pod.bound => {
            assert!(ledger.reserve(&PodRequest::new(&uid, &name, &asked), placement.plan, Timestamp(2_000), 1));
        }
        Record::Placed(placement) => {
            assert_eq!(
                ledger.observe(&PodRequest::new(&uid, &name, &asked), Held::Plan(placement.plan), true, 1),
                Seen::New
            );
        }
        Record::Absent | Record::Unreadable(_) if pod.bound => {
            assert_eq!(ledger.observe(&PodRequest::new(&uid, &name, &asked), Held::Unreadable, true, 1), Seen::New);
        }
        Record::Absent | Record::Unreadable(_) => {}
    }
}

/// The node's cards, listed or inferred from its capacity.
fn inventory(node: &kerf_scenarios::Node) -> Inventory {
    let (core, memory) = node.capacity.unwrap_or_default();
    let Some(shares) = node.shares else { return Inventory::from_capacity(core, memory) };
    let cards = u32::try_from(core / 100).unwrap();
    let card = |index: u32| {
        let mib = Mib(memory / u64::from(cards) * 256);
        let mut device = Device::new(format!("GPU-{}-{index}", node.name), index, mib);
        device.offers.insert(kerf_scenarios::SHARES.into(), PerCard::new(shares).unwrap());
        device
    };
    Inventory::new((0..cards).map(card).collect())
}

fn cluster(scenario: &Scenario) -> BTreeMap<String, NodeLedger> {
    let ledger = |node: &kerf_scenarios::Node| {
        let mut ledger = NodeLedger::new(&inventory(node));
        scenario.pods.iter().filter(|pod| pod.node == node.name).for_each(|pod| settle(&mut ledger, pod));
        (node.name.clone(), ledger)
    };
    scenario.nodes.iter().map(ledger).collect()
}

fn indices(plan: &Plan) -> BTreeMap<String, Vec<u32>> {
    let cards = |grant: &kerf::plan::Grant| grant.devices().map(|device| device.index).collect();
    plan.grants.iter().map(|grant| (grant.container.to_string(), cards(&grant.gpus))).collect()
}

/// The domain's result for the scenario: the outcome, and the reasons of the nodes that do not fit.
fn play(scenario: &Scenario) -> (Outcome, BTreeMap<String, String>) {
    let asked = match request(&scenario.request.containers, &scenario.request.annotations) {
        Err(error) => return (Outcome::Refused(error.to_string()), BTreeMap::new()),
        Ok(None) => return (Outcome::EveryNode, BTreeMap::new()),
        Ok(Some(asked)) => Arc::new(asked),
    };
    let policy = asked.policy_or(Policy::Binpack);
    let mut planner = Planner::default();
    let mut unfit = BTreeMap::new();
    let mut fitting = Vec::new();
    for (name, ledger) in cluster(scenario) {
        match planner.plan(&ledger, &asked, policy) {
            Ok(plan) => fitting.push((rank(&ledger, policy), name, ledger, plan)),
            Err(reason) => {
                unfit.insert(name, reason.to_string());
            }
        }
    }
    fitting.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let Some((_, node, mut ledger, plan)) = fitting.into_iter().next() else { return (Outcome::NoNode, unfit) };

    // what was planned can be reserved, and its record reads back
    let (uid, pod) = ("uid".into(), PodRef::new("default", scenario.pod_name()));
    assert_eq!(
        planner.assume(&mut ledger, &PodRequest::new(&uid, &pod, &asked), policy, Timestamp(9), 1),
        Ok(plan.clone())
    );
    let placement = Placement { node: node.as_str().into(), time: TIME, limit: asked.limit, plan };
    let keys = Keys::default();
    let annotations = annotation::write(&placement, &keys);
    assert_eq!(annotation::read(&annotations, &keys, &asked), Record::Placed(placement.clone()));
    for grant in placement.plan.grants.iter().filter(|grant| grant.kind == ContainerKind::App) {
        let list: Vec<String> = grant.gpus.devices().map(|device| device.index.to_string()).collect();
        let key = format!("{DOMAIN}/predicate-gpu-idx-{}", grant.position);
        assert_eq!(annotations.get(&key), Some(&list.join(",")), "{}", scenario.id);
    }
    (Outcome::Placed { node, cards: indices(&placement.plan) }, unfit)
}

#[test]
fn every_scenario_comes_out_as_written() {
    let scenarios = kerf_scenarios::all().unwrap();
    let wrong: Vec<String> = scenarios
        .iter()
        .filter_map(|scenario| {
            let (outcome, unfit) = play(scenario);
            let right = outcome == scenario.outcome && unfit == scenario.unfit;
            let Scenario { id, line, why, .. } = scenario;
            (!right).then(|| {
                let expected = (&scenario.outcome, &scenario.unfit);
                format!("{id} (line {line}): {why}\n  expected {expected:?}\n  found    {outcome:?} {unfit:?}")
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_vector_of_the_lineage_is_missing() {
    let scenarios = kerf_scenarios::all().unwrap();
    let series = [("T", 1, 4, 1), ("V", 1, 40, 2), ("P", 1, 4, 1)];
    for (letter, from, to, width) in series {
        for number in from..=to {
            let id = format!("{letter}{number:0width$}");
            assert!(scenarios.iter().any(|scenario| scenario.id == id), "{id}");
        }
    }
    let bugs = ["V06", "V07", "V08", "V09", "V13", "V27", "V28", "V29", "V31", "V34", "V36", "P1", "P4", "T3"];
    for scenario in scenarios.iter().filter(|scenario| bugs.contains(&scenario.id.as_str())) {
        assert!(scenario.upstream.is_some(), "{} says what upstream did", scenario.id);
    }
}

#[test]
fn a_line_that_is_not_understood_is_an_error_with_its_number() {
    let start = "scenario X why\nnode a 100/60\n";
    let end = "request 1/1\n=> a c0:0\n";
    assert_eq!(kerf_scenarios::parse(&format!("{start}{end}")).unwrap().len(), 1);
    for bad in [
        "nod b 100/60",
        "node a 100/60",
        "node b 100",
        "node b 100/x",
        "pod e on b 1/1 running",
        "pod e on a 1/1 dancing",
        "pod e for a 1/1 running",
        "pod e on a 1/1 @ 0 | 1 running",
        "pod e on a 1 running",
        "request 1/1, init 1/1",
        "request side 1/1",
        "request 1/",
        "request x",
        "node b 100/60 shares many",
        "annotation key",
        "after Y",
        "=> a c0:0",
        "!! a reason",
        "missing node",
        " node b 100/60",
    ] {
        let error = kerf_scenarios::parse(&format!("{start}{bad}\n{end}")).unwrap_err();
        assert!(error.starts_with("line 3: "), "{bad}: {error}");
    }
    for bad in ["=> a c0:0", "request 1/1", "!! a reason", "!! b reason"] {
        let error = kerf_scenarios::parse(&format!("{start}{end}{bad}\n")).unwrap_err();
        assert!(error.starts_with("line 5: "), "{bad}: {error}");
    }
    for bad in ["=> b c0:0", "=> a c1:0", "=> a c0:-1", "=> a c0", "=> nothing"] {
        let error = kerf_scenarios::parse(&format!("{start}request 1/1\n{bad}\n")).unwrap_err();
        assert!(error.starts_with("line 4: "), "{bad}: {error}");
    }
    assert!(kerf_scenarios::parse(start).unwrap_err().starts_with("line 1: "));
    assert!(kerf_scenarios::parse("node a 100/60\n").unwrap_err().starts_with("line 1: "));
}

#[test]
fn a_scenario_that_follows_another_starts_with_its_pod_running() {
    let scenarios = kerf_scenarios::all().unwrap();
    let t4 = scenarios.iter().find(|scenario| scenario.id == "T4").unwrap();
    let pods: Vec<String> =
        t4.pods.iter().map(|pod| format!("{} {} {:?}", pod.name, pod.node, pod.record)).collect();
    let expected = [
        r#"t1 testnode0 [Some("0"), Some("0")]"#,
        r#"t2 testnode1 [Some("0"), Some("1")]"#,
        r#"t3b testnode2 [Some("0,1"), None]"#,
    ];
    assert_eq!(pods, expected);
}

/// The objects that the extender's tests send are equal to the scenario.
#[test]
fn rendered_objects_say_what_the_scenario_says() {
    use kerf::k8s;

    for domain in [DOMAIN, "tencent.com"] {
        let shares = "deepomatic.com/shared-gpu,amd.com/gpu,nvidia.com/gpu".parse().unwrap();
        let keys = Keys::new(domain.parse().unwrap()).with_shares(shares);
        for scenario in kerf_scenarios::all().unwrap() {
            for node in &scenario.nodes {
                let view = k8s::node(&serde_json::from_value(node.json(domain)).unwrap(), &keys).unwrap();
                assert_eq!(view.name.as_str(), node.name);
                assert_eq!(view.inventory, Ok(inventory(node)));
            }
            for pod in &scenario.pods {
                let view = k8s::pod(&serde_json::from_value(pod.json(domain, TIME)).unwrap(), &keys).unwrap();
                let asked = request(&pod.containers, &[]).unwrap().unwrap();
                assert_eq!(view.node.as_ref().map(|node| node.as_str()), pod.bound.then_some(pod.node.as_str()));
                assert_eq!(view.ended, matches!(pod.phase, "Failed" | "Succeeded"));
                assert_eq!(view.record, annotation::read(&pod.annotations(domain, TIME), &keys, &asked));
                assert_eq!(view.request, Ok(Some(Arc::new(asked))));
            }
            let view = k8s::pod(&serde_json::from_value(scenario.pod_json(domain)).unwrap(), &keys).unwrap();
            let asked = request(&scenario.request.containers, &scenario.request.annotations);
            assert_eq!(view.request, asked.map(|asked| asked.map(Arc::new)), "{}", scenario.id);
            assert_eq!((view.node, view.pod.name.to_string()), (None, scenario.pod_name()));
        }
    }
}
