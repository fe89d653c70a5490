//! Where the API server shows a pod otherwise than it is, and the writes that correct it.

use std::collections::{BTreeMap, BTreeSet};

use kerf::annotation::isolation::{self, Levels};
use kerf::annotation::{self, Keys};
use kerf::ids::{PodRef, PodUid};
use kerf::plan::{Placement, Plan};
use kerf::request::Ask;

use crate::allocation::{Allocations, Claim, Entry};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correction {
    /// A write to another pod of the same name would be wrong.
    pub uid: PodUid,
    pub reference: PodRef,
    pub annotations: BTreeMap<String, String>,
    /// Where the pod is now told to have its GPUs: which, how much of each, and what enforces it.
    pub assigned: Option<String>,
}

impl Allocations {
    /// The isolation of a pod's containers. For a container that a previous run of the plugin served and left no
    /// note on, the pod's record counts. `None` while a container is being prepared.
    fn levels_of(&self, entry: &Entry) -> Option<Levels> {
        let mut levels = Levels::new();
        // shares by count promise no isolation, so none is recorded
        for container in entry.lasting().filter(|container| !matches!(container.ask, Ask::Counted(_))) {
            let core = entry.claims.get(&container.name).and_then(Claim::core);
            let shown = || entry.pod.isolated.as_ref()?.get(&container.name).copied();
            let level = match core.and_then(|core| self.level(&entry.key(&container.name), core)) {
                Some(level) => Some(level),
                None if matches!(container.ask, Ask::Whole { .. }) => shown(),
                None if core.is_some_and(|core| self.answers.has(core)) => return None,
                None => Some(shown().unwrap_or_default()),
            };
            levels.extend(level.map(|level| (container.name.clone(), level)));
        }
        Some(levels)
    }

    /// The corrections for all pods whose annotations differ from what is true.
    ///
    /// A pod all of whose containers are confirmed is marked as such. A placement is written again where it was
    /// exchanged, and where another client changed it after the pod got its GPUs.
    pub fn corrections(&self, keys: &Keys) -> Vec<Correction> {
        self.pods
            .values()
            .filter_map(|entry| {
                let placement = entry.placement.as_ref()?;
                let confirmed = entry.complete();
                let actual = self.resolve(&placement.plan);
                let shown = entry.pod.record.as_ref().map(|record| self.resolve(&record.plan));
                let rewrite = (entry.corrected || confirmed) && shown.as_ref() != Some(&actual);
                let mut annotations = BTreeMap::new();
                let levels = self.levels_of(entry);
                let newly = confirmed && (rewrite || !entry.pod.confirmed);
                let assigned = newly.then(|| assigned(&actual, levels.as_ref()));
                if rewrite {
                    annotations = annotation::write(&Placement { plan: actual, ..placement.clone() }, keys);
                    annotations.insert(keys.gpu_assigned.clone(), entry.pod.confirmed.to_string());
                }
                if newly {
                    annotations.insert(keys.gpu_assigned.clone(), "true".into());
                }
                if let Some(levels) = levels
                    && confirmed
                    && !levels.is_empty()
                    && entry.pod.isolated.as_ref() != Some(&levels)
                {
                    annotations.insert(keys.isolated.clone(), isolation::encode(&levels));
                }
                (!annotations.is_empty()).then(|| Correction {
                    uid: entry.pod.uid.clone(),
                    reference: entry.pod.reference.clone(),
                    annotations,
                    assigned,
                })
            })
            .collect()
    }
}

/// As in `main: GPU-5c0d... (50 core, 7680 MiB); isolation limiter`.
fn assigned(plan: &Plan, levels: Option<&Levels>) -> String {
    let levels: BTreeSet<&str> = levels.into_iter().flat_map(Levels::values).map(|level| level.as_str()).collect();
    let levels: Vec<&str> = levels.into_iter().collect();
    match levels[..] {
        [] => plan.to_string(),
        ["none"] => format!("{plan}; nothing enforces the shares"),
        _ => format!("{plan}; isolation {}", levels.join(", ")),
    }
}
