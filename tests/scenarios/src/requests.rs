//! The pods of the table `tests/requests.json`: what a pod may ask for, tested against the domain and on real Kubernetes.

use serde_json::{Map, Value, json};

/// Metadata and spec of the pod of a row, with names under this domain.
pub fn template(row: &Value, domain: &str) -> Value {
    let list = |key: &str| -> Vec<Value> {
        let containers = row[key].as_array().into_iter().flatten();
        let own = containers.map(|container| {
            let mut own = json!({
                "name": container["name"], "image": IMAGE, "resources": { "limits": below(domain, &container["limits"]) },
            });
            if container["restarts"] == true {
                own["restartPolicy"] = "Always".into();
            }
            own
        });
        own.collect()
    };
    let pod = json!({
        "metadata": { "labels": { "app": "row" }, "annotations": below(domain, &row["annotations"]) },
        "spec": { "initContainers": list("init"), "containers": list("containers") },
    });
    filled(pod, row, domain)
}

const IMAGE: &str = "busybox:1.37";

/// The domain's names stand without it.
fn below(domain: &str, names: &Value) -> Value {
    let full =
        |name: &String| if name.contains('/') || name == "cpu" { name.clone() } else { format!("{domain}/{name}") };
    let names = names.as_object().into_iter().flatten();
    names.map(|(name, value)| (full(name), value.clone())).collect::<Map<_, _>>().into()
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
    let more = numbers("containers").map(|number| json!({ "name": format!("more-{number}"), "image": IMAGE }));
    pod["spec"]["containers"].as_array_mut().into_iter().for_each(|list| list.extend(more.clone()));
    pod
}
