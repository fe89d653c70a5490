//! What a bound pod holds of its node's cards: the one place that decides what it counts as and whether its record is
//! accepted.
//!
//! Annotations that a user may write decide nothing here. A pod is counted by its record; where no record is accepted,
//! by its amounts, which it may have on any card; and where even those cannot be read, as all that it may have.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::annotation::{self, Keys, Record};
use crate::ids::NodeName;
use crate::ledger::Held;
use crate::request::GpuRequest;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub node: NodeName,
    /// What it counts as ([`GpuRequest::of_bound`]).
    pub request: Arc<GpuRequest>,
    /// Its placement by its annotations, checked against `node` and `request`.
    pub record: Record,
}

impl Holding {
    pub(super) fn of(
        request: Arc<GpuRequest>,
        node: NodeName,
        annotations: &BTreeMap<String, String>,
        keys: &Keys,
    ) -> Self {
        let record = annotation::read_bound(annotations, keys, &request, &node);
        Self { node, request, record }
    }

    /// What its node's ledger counts.
    pub fn held(&self) -> Held {
        match &self.record {
            Record::Placed(placement) => Held::Plan(placement.plan.clone()),
            Record::Absent | Record::Unreadable(_) => Held::Unreadable,
        }
    }
}
