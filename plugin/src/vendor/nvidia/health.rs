//! The driver's reports about a GPU's health, and when a GPU counts as healthy again. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kerf::device::Health;
use kerf::ids::DeviceId;

/// XIDs that a program causes, not the GPU: exceptions of kernels, MMU faults and cleanup after them.
pub const APPLICATION_XIDS: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// The health of every GPU that was ever asked about.
#[derive(Clone, Debug)]
pub struct HealthTable {
    quiet: Duration,
    cards: BTreeMap<DeviceId, Condition>,
}

#[derive(Clone, Debug, Default)]
struct Condition {
    answers: bool,
    /// The last critical event.
    critical: Option<Instant>,
}

impl HealthTable {
    /// A GPU is healthy again after `quiet` without a critical event.
    pub fn new(quiet: Duration) -> Self {
        Self { quiet, cards: BTreeMap::new() }
    }

    /// The driver reported an error of a GPU; `xid` is `None` for an error without a number. Returns whether it
    /// counts.
    pub fn xid(&mut self, card: &DeviceId, xid: Option<u64>, now: Instant) -> bool {
        let critical = xid.is_none_or(|xid| !APPLICATION_XIDS.contains(&xid));
        if critical {
            self.cards.entry(card.clone()).or_default().critical = Some(now);
        }
        critical
    }

    /// Whether the driver answers for a GPU now.
    pub fn answers(&mut self, card: &DeviceId, answers: bool) {
        self.cards.entry(card.clone()).or_default().answers = answers;
    }

    pub fn health(&self, now: Instant) -> BTreeMap<DeviceId, Health> {
        let health = |condition: &Condition| {
            let quiet = condition.critical.is_none_or(|at| now.saturating_duration_since(at) >= self.quiet);
            if condition.answers && quiet { Health::Healthy } else { Health::Unhealthy }
        };
        self.cards.iter().map(|(id, condition)| (id.clone(), health(condition))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_critical_error_counts_until_it_was_quiet_for_long_enough() {
        let (card, start) = (DeviceId::from("a"), Instant::now());
        let mut table = HealthTable::new(Duration::from_secs(60));
        let at = |table: &HealthTable, seconds| table.health(start + Duration::from_secs(seconds))[&card];
        table.answers(&card, true);
        assert_eq!(at(&table, 0), Health::Healthy);
        for xid in APPLICATION_XIDS {
            assert!(!table.xid(&card, Some(xid), start));
        }
        assert_eq!(at(&table, 0), Health::Healthy);
        assert!(table.xid(&card, Some(79), start));
        assert_eq!(at(&table, 59), Health::Unhealthy);
        assert_eq!(at(&table, 60), Health::Healthy);
        assert!(table.xid(&card, None, start + Duration::from_secs(60)));
        assert_eq!(at(&table, 100), Health::Unhealthy);
    }

    #[test]
    fn a_card_that_does_not_answer_is_ill_until_it_does() {
        let card = DeviceId::from("a");
        let mut table = HealthTable::new(Duration::from_secs(60));
        table.answers(&card, false);
        assert_eq!(table.health(Instant::now())[&card], Health::Unhealthy);
        table.answers(&card, true);
        assert_eq!(table.health(Instant::now())[&card], Health::Healthy);
    }
}
