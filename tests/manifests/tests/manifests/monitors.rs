//! What Prometheus' operator scrapes is what the pods' annotations say.

use serde_json::Value;

use crate::kinds::{Monitoring, PodMonitor};
use crate::reading::{documents, of_kind, only};

/// Whether a PodMonitor selects pods with these labels.
fn selects(monitor: &PodMonitor, labels: &Value) -> bool {
    let equal = monitor.selector.match_labels.iter().flatten().all(|(key, value)| labels[key] == **value);
    let among = monitor.selector.match_expressions.iter().flatten().all(|expression| {
        assert_eq!(expression.operator, "In");
        expression.values.iter().flatten().any(|value| labels[&expression.key] == **value)
    });
    equal && among
}

#[test]
fn every_programs_port_for_metrics_is_scraped_once() {
    let monitors: Vec<Monitoring<PodMonitor>> = of_kind("manifests/components/pod-monitors", "PodMonitor");
    let mut seen = 0;
    for directory in ["manifests/base", "manifests/components/remote", "manifests/profiles"] {
        for (name, object) in documents(directory) {
            if !["Deployment", "DaemonSet"].iter().any(|kind| object["kind"] == *kind) {
                continue;
            }
            let template = &object["spec"]["template"];
            let labels = &template["metadata"]["labels"];
            let own = monitors.iter().filter(|monitor| selects(&monitor.spec, labels)).collect();
            let endpoint = only(only::<&Monitoring<PodMonitor>>(own).spec.pod_metrics_endpoints.iter().collect());
            let spec = &template["spec"];
            let containers = [&spec["initContainers"], &spec["containers"]].into_iter().filter_map(Value::as_array);
            let ports = containers.flatten().filter_map(|container| container["ports"].as_array()).flatten();
            let port = only(ports.filter(|port| port["name"] == *endpoint.port).collect::<Vec<_>>());
            let annotated = &template["metadata"]["annotations"]["prometheus.io/port"];
            assert_eq!(*annotated, port["containerPort"].to_string(), "{name}");
            seen += 1;
        }
    }
    assert_eq!(seen, 4);
}
