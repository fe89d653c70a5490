//! What tenants do without the scheduler: they edit annotations of their pods, before and after these are bound, and
//! create pods with `spec.nodeName`.
//!
//! The admission policies of the manifests forbid both. Here, records of bound pods are removed or made unreadable, but
//! not replaced by other readable ones: only the policies protect the extender from those.

use std::collections::BTreeMap;

use kerf::annotation::{Keys, placement};
use kerf::plan::Placement;
use kerf_testkit::api::ApiServer;
use serde_json::{Value, json};

use super::{Lot, is_bound, text};
use crate::fixture::{pod, share};

/// A pod that was created with `spec.nodeName`: the plugin gives it nothing.
pub fn is_stranger(pod: &Value) -> bool {
    text(pod, "/metadata/name").starts_with("stranger")
}

/// The annotations of bound pods before they were edited, by name.
#[derive(Default)]
pub struct Tenant {
    before: BTreeMap<String, Value>,
}

impl Tenant {
    /// The placement that a pod was bound with.
    pub fn placed(&self, pod: &Value) -> Placement {
        let annotations =
            self.before.get(text(pod, "/metadata/name")).unwrap_or_else(|| &pod["metadata"]["annotations"]);
        let record = annotations[&Keys::default().placement].as_str().expect("bound with a record");
        placement::decode(record).expect("a record that can be read")
    }

    pub fn edit(&mut self, api: &ApiServer, lot: &mut Lot, pod: &Value) {
        let keys = Keys::default();
        let name = text(pod, "/metadata/name").to_owned();
        let text = lot.one(&[Value::Null, json!("x"), json!("{}"), json!("")]).unwrap().clone();
        let of_user =
            [keys.core_limit.clone(), keys.policy.clone(), keys.isolation.clone(), keys.placement.clone()];
        // a pending pod's record may be written before this edit
        let among = if is_bound(pod) { &of_user[..] } else { &of_user[..3] };
        let key = lot.one(among).unwrap();
        if is_bound(pod) {
            self.before.entry(name.clone()).or_insert_with(|| pod["metadata"]["annotations"].clone());
        }
        api.patch("pods", "default", &name, &json!({ "metadata": { "annotations": { key: text } } })).unwrap();
    }

    /// A pod bound by `spec.nodeName`, with or without a made-up record.
    pub fn stranger(&self, lot: &mut Lot, number: usize, node: u64, core: &str) -> Value {
        let mut stranger = pod(&format!("stranger{number}"), share(core, if core.len() > 2 { "" } else { "10" }));
        let node = format!("n{node}");
        if lot.draw(2) == 0 && core.len() < 3 {
            let compute = core.parse::<u32>().unwrap() * 10;
            let slice = json!({ "gpu": format!("GPU-{node}-0"), "index": 0, "compute": compute, "memory": 2560 });
            let container =
                json!({ "name": "main", "kind": "app", "position": 0, "whole": false, "slices": [slice] });
            let record = json!({ "version": 1, "node": node, "time": 1, "containers": [container] });
            stranger["metadata"]["annotations"] = json!({ Keys::default().placement: record.to_string() });
        }
        stranger["spec"]["nodeName"] = node.into();
        stranger
    }

    /// Whether a bound pod's annotations were changed.
    pub fn has_edited(&self, pod: &Value) -> bool {
        self.before.contains_key(text(pod, "/metadata/name"))
    }

    /// Restores the annotations of a pod.
    pub fn mend(&self, api: &ApiServer, pod: &Value) {
        let keys = Keys::default();
        let name = text(pod, "/metadata/name");
        let mut annotations = json!({ keys.core_limit: null, keys.policy: null, keys.isolation: null });
        if let Some(before) = self.before.get(name) {
            for (key, value) in before.as_object().into_iter().flatten() {
                annotations[key] = value.clone();
            }
        }
        api.patch("pods", "default", name, &json!({ "metadata": { "annotations": annotations } })).unwrap();
    }
}
