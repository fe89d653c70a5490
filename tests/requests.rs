//! What a pod may ask for, one table for all who decide about it: `requests.json`. Here the domain, whose answers are the
//! extender's and those of `kerf plan`; on real Kubernetes the admission policy of `manifests/base/requests.yaml`.
//!
//! A row has the limits of containers and the pod's annotations, without kerf's domain, and what is said: the text of the
//! refusal, or nothing. `many` fills the pod up with what the rules have to look through. `by` says that Kubernetes refuses such a pod itself, in words of its own.

#![allow(clippy::unwrap_used, reason = "a test")]

use kerf::annotation::Keys;
use kerf::k8s;
use kerf::shares::SHARE_RESOURCES;
use serde_json::{Map, Value, json};

/// The domain's names stand without it.
fn below(domain: &str, names: &Value) -> Value {
    let full =
        |name: &String| if name.contains('/') || name == "cpu" { name.clone() } else { format!("{domain}/{name}") };
    names
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (full(name), value.clone()))
        .collect::<Map<_, _>>()
        .into()
}

fn pod(row: &Value, domain: &str) -> Value {
    let list = |key: &str| -> Vec<Value> {
        let containers = row[key].as_array().into_iter().flatten();
        let own = containers.map(|container| {
            let policy = container["restarts"].as_bool().map(|_| "Always");
            json!({
                "name": container["name"], "restartPolicy": policy,
                "resources": { "limits": below(domain, &container["limits"]) },
            })
        });
        own.collect()
    };
    json!({
        "metadata": { "name": "p", "uid": "u", "annotations": below(domain, &row["annotations"]) },
        "spec": { "initContainers": list("init"), "containers": list("containers") },
    })
}

/// With as many more annotations, limits and containers as `many` of the row says. Their names are close to none of kerf's;
/// those below the domain are as long as what takes longest to compare.
fn filled(mut pod: Value, row: &Value, domain: &str) -> Value {
    let numbers = |of: &str| 0..row["many"][of].as_u64().unwrap_or_default();
    for number in numbers("annotations") {
        pod["metadata"]["annotations"][format!("{domain}/annotation-of-{number:03}")] = "x".into();
    }
    let limits = &mut pod["spec"]["containers"][0]["resources"]["limits"];
    for number in numbers("unknown") {
        limits[format!("{domain}/resource-no{number:03}")] = "1".into();
    }
    for number in numbers("limits") {
        limits[format!("example.com/limit-{number}")] = "1".into();
    }
    let more =
        numbers("containers").map(|number| json!({ "name": format!("more-{number}"), "image": "busybox:1.37" }));
    pod["spec"]["containers"].as_array_mut().into_iter().for_each(|list| list.extend(more.clone()));
    pod
}

#[test]
fn the_domain_says_what_the_table_says() {
    let table: Vec<Value> = serde_json::from_str(include_str!("requests.json")).unwrap();
    assert!(table.len() > 100);
    for domain in ["inspur.com", "tencent.com"] {
        let keys = Keys::new(domain.parse().unwrap()).with_shares(SHARE_RESOURCES.parse().unwrap());
        for row in &table {
            let pod = serde_json::from_value(filled(pod(row, domain), row, domain)).unwrap();
            let said = k8s::request(&pod, &keys).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(row["says"], said, "{row}");
        }
    }
}
