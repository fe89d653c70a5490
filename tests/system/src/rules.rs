//! `manifests/components/alerts`, as Prometheus has it.

use std::path::PathBuf;

use serde_json::Value;

/// How the parts of an expression that make an alert wait are shortened for a test, so that it is seen to fire and to
/// clear within seconds. The stand-in API server sends a bookmark every five seconds.
const SHORTER: [(&str, &str); 2] = [("[10m]", "[6s]"), ("> 150", "> 8")];

fn file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../manifests/components/alerts/alerts.yaml"))
}

/// The groups of rules, as they are shipped.
pub fn groups() -> Value {
    let text = std::fs::read_to_string(file()).expect("the alerts");
    let object: Value = serde_saphyr::from_str(&text).expect("YAML");
    assert_eq!(object["kind"], "PrometheusRule");
    object["spec"]["groups"].clone()
}

/// All rules of the groups.
pub fn rules(groups: &Value) -> Vec<Value> {
    let groups = groups.as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

/// The names of all alerts.
pub fn alerts(groups: &Value) -> Vec<String> {
    rules(groups).iter().filter_map(|rule| Some(rule["alert"].as_str()?.to_owned())).collect()
}

/// The same rules, where an alert fires as soon as its expression gives something.
pub fn at_once() -> Value {
    let mut groups = groups();
    for group in groups.as_array_mut().expect("groups") {
        for rule in group["rules"].as_array_mut().expect("rules") {
            let mut expression = rule["expr"].as_str().expect("an expression").to_owned();
            for (long, short) in SHORTER {
                expression = expression.replace(long, short);
            }
            assert!(!expression.contains("m]"), "minutes in {expression}");
            rule["expr"] = expression.into();
            if rule["alert"].is_string() {
                rule["for"] = "0s".into();
            }
        }
    }
    groups
}
