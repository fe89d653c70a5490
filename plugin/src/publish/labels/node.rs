//! Labels on the Node itself: which to add, change and remove. Pure.
//!
//! An annotation of the Node lists the keys of the labels that are kerf's; each plugin of a node has its own. A
//! label that another client wrote is left as it is, even where kerf would write another value; a label of kerf's
//! that another client overwrote is restored. The list is not trusted for keys that no vendor's labels have.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::Changes;
use crate::device::backend::Vendor;
use crate::publish::labels::wanted::Wanted;
use crate::vendor;

/// The changes to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub labels: Changes,
    /// The plugin's list of its labels.
    pub annotations: Changes,
    /// Keys that other clients have set to another value.
    pub foreign: BTreeSet<String>,
}

impl Plan {
    /// From what the Node shows to what is wanted. `list`: the annotation of this plugin.
    pub fn new(
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
        wanted: &Wanted,
        list: &str,
    ) -> Self {
        let mut plan = Self::default();
        let listed = annotations.get(list).map(String::as_str);
        let keys = listed.into_iter().flat_map(|text| text.split(','));
        let before: BTreeMap<&str, Vendor> = keys.filter_map(|key| Some((key, vendor::of_label(key)?))).collect();
        let untouched = before.iter().filter(|(_, vendor)| !wanted.vendors.contains_key(vendor));
        let mut after: BTreeSet<&str> = untouched.map(|(key, _)| *key).collect();
        for (key, value) in wanted.vendors.values().flat_map(|own| own.iter()) {
            let shown = labels.get(key).map(String::as_str);
            if shown.is_none() || before.contains_key(key) {
                after.insert(key);
                if shown != Some(value) {
                    plan.labels.insert(key.to_owned(), Some(value.to_owned()));
                }
            } else if shown != Some(value) {
                plan.foreign.insert(key.to_owned());
            }
        }
        for gone in before.keys().filter(|key| !after.contains(*key) && labels.contains_key(**key)) {
            plan.labels.insert((*gone).to_owned(), None);
        }
        let text = after.into_iter().collect::<Vec<_>>().join(",");
        let text = Some(text).filter(|text| !text.is_empty());
        if text.as_deref() != listed {
            plan.annotations.insert(list.to_owned(), text);
        }
        for (key, value) in wanted.gates.iter().filter(|(key, _)| !labels.contains_key(*key)) {
            plan.labels.insert(key.to_owned(), Some(value.to_owned()));
        }
        plan
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::label::Labels;
    use proptest::prelude::*;

    type Map = BTreeMap<String, String>;

    const LIST: &str = "d/gpu-labels-amd";

    fn map<const N: usize>(pairs: [(&str, &str); N]) -> Map {
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    fn wanted(own: &Map) -> Wanted {
        let mut labels = Labels::default();
        own.iter().for_each(|(key, value)| labels.set(key, value));
        Wanted { vendors: BTreeMap::from([(Vendor::Amd, labels)]), gates: Labels::default() }
    }

    fn apply(map: &mut Map, changes: Changes) {
        for (key, value) in changes {
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
    }

    #[test]
    fn only_what_kerf_wrote_is_changed_and_removed() {
        let mut labels = map([
            ("amd.com/gpu.vram", "16G"),
            ("amd.com/gpu.cu-count", "7"),
            ("amd.com/gpu", "x"),
            ("amd.com/cpu", "x"),
            ("amd.com/mi300x", "x"),
            ("dummyLabel1", "1"),
        ]);
        let mut annotations = Map::new();
        let own = map([("amd.com/gpu.vram", "16G"), ("amd.com/gpu.cu-count", "64"), ("amd.com/gpu.family", "AI")]);
        let plan = Plan::new(&labels, &annotations, &wanted(&own), LIST);
        assert_eq!(plan.labels, BTreeMap::from([("amd.com/gpu.family".into(), Some("AI".into()))]));
        assert_eq!(plan.foreign, BTreeSet::from(["amd.com/gpu.cu-count".to_owned()]));
        assert_eq!(plan.annotations, BTreeMap::from([(LIST.into(), Some("amd.com/gpu.family".into()))]));
        apply(&mut labels, plan.labels);
        apply(&mut annotations, plan.annotations);
        // another client overwrites kerf's label; later the label is not wanted any more
        labels.insert("amd.com/gpu.family".into(), "XX".into());
        let again = Plan::new(&labels, &annotations, &wanted(&own), LIST);
        assert_eq!(again.labels, BTreeMap::from([("amd.com/gpu.family".into(), Some("AI".into()))]));
        let none = Plan::new(&labels, &annotations, &wanted(&Map::new()), LIST);
        assert_eq!(none.labels, BTreeMap::from([("amd.com/gpu.family".into(), None)]));
        assert_eq!(none.annotations, BTreeMap::from([(LIST.into(), None)]));
    }

    #[test]
    fn a_list_that_was_tampered_with_removes_no_other_label() {
        let labels = map([("kubernetes.io/hostname", "n"), ("nvidia.com/gpu.count", "1"), ("amd.com/gpu", "x")]);
        let annotations = map([(LIST, "kubernetes.io/hostname,nvidia.com/gpu.count,amd.com/gpu,,")]);
        let plan = Plan::new(&labels, &annotations, &wanted(&Map::new()), LIST);
        // nor one of a vendor whose GPUs are not known yet
        assert!(plan.labels.is_empty());
        assert_eq!(plan.annotations, BTreeMap::from([(LIST.into(), Some("nvidia.com/gpu.count".into()))]));
    }

    #[test]
    fn a_gate_is_added_and_neither_changed_nor_removed() {
        let mut wants = Wanted::default();
        wants.gates.set("nvidia-device-enable", "enable");
        let plan = Plan::new(&Map::new(), &Map::new(), &wants, LIST);
        assert_eq!(plan.labels, BTreeMap::from([("nvidia-device-enable".into(), Some("enable".into()))]));
        let there = map([("nvidia-device-enable", "disable")]);
        assert!(Plan::new(&there, &Map::new(), &wants, LIST).is_empty());
        assert!(Plan::new(&there, &Map::new(), &Wanted::default(), LIST).is_empty());
    }

    fn some() -> impl Strategy<Value = Map> {
        let key = prop_oneof![
            "amd\\.com/gpu\\.[a-c]",
            "beta\\.amd\\.com/gpu\\.[a-b]",
            Just("other.com/x".to_owned()),
            Just("amd.com/gpu".to_owned()),
        ];
        proptest::collection::btree_map(key, "[0-2]", 0..6)
    }

    proptest! {
        /// Whatever labels exist and in whatever order wanted labels come: a plan that was carried out leaves
        /// nothing to do; what kerf did not write stays as it was; and when no label is wanted any more, only that
        /// is left.
        #[test]
        fn carried_out_plans_converge_and_leave_no_trace(start in some(), wishes in proptest::collection::vec(some(), 1..5)) {
            let (mut labels, mut annotations) = (start.clone(), Map::new());
            for wish in wishes.iter().chain([&Map::new()]) {
                let own: Map = wish.iter().filter(|(key, _)| key.contains("/gpu.")).map(|(k, v)| (k.clone(), v.clone())).collect();
                let plan = Plan::new(&labels, &annotations, &wanted(&own), LIST);
                apply(&mut labels, plan.labels);
                apply(&mut annotations, plan.annotations);
                prop_assert!(Plan::new(&labels, &annotations, &wanted(&own), LIST).is_empty());
                prop_assert!(start.iter().all(|(key, value)| labels.get(key) == Some(value)));
                prop_assert!(own.keys().all(|key| labels.contains_key(key)));
            }
            prop_assert_eq!(labels, start);
            prop_assert!(annotations.is_empty());
        }
    }
}
