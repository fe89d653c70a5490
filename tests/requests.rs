//! What a pod may ask for, one table for all who decide about it: `requests.json`. Here the domain, whose answers are the
//! extender's and those of `kerf plan`; on real Kubernetes the admission policy of `manifests/base/requests.yaml`.
//!
//! A row has the limits of containers and the pod's annotations, without kerf's domain, and what is said: the text of the
//! refusal, or nothing. `many` fills the pod up with what the rules have to look through. `by` says that Kubernetes refuses such a pod itself, in words of its own.

#![allow(clippy::unwrap_used, reason = "a test")]

use k8s_openapi::api::core::v1::Pod;
use kerf::annotation::Keys;
use kerf::k8s;
use kerf::shares::SHARE_RESOURCES;
use kerf_scenarios::requests::template;
use serde_json::Value;

fn pod(row: &Value, domain: &str) -> Pod {
    let mut pod = template(row, domain);
    pod["metadata"]["name"] = "p".into();
    pod["metadata"]["uid"] = "u".into();
    serde_json::from_value(pod).unwrap()
}

#[test]
fn the_domain_says_what_the_table_says() {
    let table: Vec<Value> = serde_json::from_str(include_str!("requests.json")).unwrap();
    assert!(table.len() > 100);
    for domain in ["inspur.com", "tencent.com"] {
        let keys = Keys::new(domain.parse().unwrap()).with_shares(SHARE_RESOURCES.parse().unwrap());
        for row in &table {
            let pod = pod(row, domain);
            let said = k8s::request(&pod, &keys).err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(row["says"], said, "{row}");
        }
    }
}
