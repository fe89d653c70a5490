//! The last decisions on which container an Allocate was for, kept for `/debug/state`.

use std::collections::VecDeque;

use k8s_openapi::jiff::Timestamp;

use crate::allocation::{Decision, Key, Refusal};
use crate::device::ids::Resource;

/// So many are kept.
const KEPT: usize = 64;

#[derive(Clone, Debug)]
pub struct Decided {
    /// When the call was answered.
    pub at: Timestamp,
    pub resource: Resource,
    /// How many ids the call was for.
    pub units: u64,
    /// The container that the call was for, and on what evidence; or the code of the refusal.
    pub outcome: Result<(Key, Decision), &'static str>,
}

/// The oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Decisions(VecDeque<Decided>);

impl Decisions {
    pub(super) fn add(&mut self, resource: &Resource, units: u64, outcome: Result<(&Key, &Decision), &Refusal>) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        let outcome = outcome.map(|(key, decision)| (key.clone(), decision.clone())).map_err(Refusal::code);
        self.0.push_back(Decided { at: Timestamp::now(), resource: resource.clone(), units, outcome });
    }

    pub(super) fn all(&self) -> Vec<Decided> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept() {
        let mut decisions = Decisions::default();
        for units in 0..100 {
            decisions.add(&Resource::Core, units, Err(&Refusal::Ambiguous { resource: "core".into(), units }));
        }
        let kept = decisions.all();
        assert_eq!((kept.len(), kept[0].units, kept[63].units), (64, 36, 99));
        assert!(matches!(kept[63].outcome, Err("ambiguous")));
    }
}
