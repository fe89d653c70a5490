//! The driver's reports about a GPU's health, and when a GPU counts as healthy again. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kerf::device::Health;
use kerf::ids::DeviceId;

use crate::vendor::nvidia::errors::{ErrorPolicy, Verdict};

/// The health of every GPU that was ever asked about. It outlives the library's handles: that the driver or its
/// events had to be started again makes no GPU healthy.
#[derive(Clone, Debug)]
pub struct HealthTable {
    quiet: Duration,
    policy: ErrorPolicy,
    cards: BTreeMap<DeviceId, Condition>,
}

#[derive(Clone, Debug, Default)]
struct Condition {
    answers: bool,
    /// The last critical event.
    critical: Option<Instant>,
    /// Whether an event was one after which it stays unhealthy.
    lasting: bool,
}

impl HealthTable {
    /// A GPU is healthy again after `quiet` without a critical event, as `policy` counts them.
    pub fn new(quiet: Duration, policy: ErrorPolicy) -> Self {
        Self { quiet, policy, cards: BTreeMap::new() }
    }

    /// The driver reported an error of a GPU; `xid` is `None` for an error without a number. Returns whether it
    /// counts.
    pub fn xid(&mut self, card: &DeviceId, xid: Option<u64>, now: Instant) -> bool {
        let verdict = self.policy.verdict(xid);
        if verdict != Verdict::Passed {
            let condition = self.cards.entry(card.clone()).or_default();
            condition.critical = Some(now);
            condition.lasting |= verdict == Verdict::Lasting;
        }
        verdict != Verdict::Passed
    }

    /// Whether the driver answers for a GPU now.
    pub fn answers(&mut self, card: &DeviceId, answers: bool) {
        self.cards.entry(card.clone()).or_default().answers = answers;
    }

    /// An instance (MIG) that is new has the errors that its GPU had.
    pub fn inherit(&mut self, instance: &DeviceId, parent: &DeviceId) {
        if instance != parent && !self.cards.contains_key(instance) {
            let condition = self.cards.get(parent).cloned().unwrap_or_default();
            self.cards.insert(instance.clone(), condition);
        }
    }

    /// An instance (MIG) that does not exist any more.
    pub fn forget(&mut self, instance: &DeviceId) {
        self.cards.remove(instance);
    }

    pub fn health(&self, now: Instant) -> BTreeMap<DeviceId, Health> {
        let health = |condition: &Condition| {
            let quiet = condition.critical.is_none_or(|at| now.saturating_duration_since(at) >= self.quiet);
            let well = condition.answers && quiet && !condition.lasting;
            if well { Health::Healthy } else { Health::Unhealthy }
        };
        self.cards.iter().map(|(id, condition)| (id.clone(), health(condition))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(60);

    fn at(table: &HealthTable, card: &DeviceId, start: Instant, seconds: u64) -> Health {
        table.health(start + Duration::from_secs(seconds))[card]
    }

    #[test]
    fn a_critical_error_counts_until_it_was_quiet_for_long_enough() {
        let (card, start) = (DeviceId::from("a"), Instant::now());
        let mut table = HealthTable::new(QUIET, ErrorPolicy::default());
        table.answers(&card, true);
        assert_eq!(at(&table, &card, start, 0), Health::Healthy);
        assert!(!table.xid(&card, Some(31), start));
        assert_eq!(at(&table, &card, start, 0), Health::Healthy);
        assert!(table.xid(&card, Some(79), start));
        assert_eq!(at(&table, &card, start, 59), Health::Unhealthy);
        assert_eq!(at(&table, &card, start, 60), Health::Healthy);
        assert!(table.xid(&card, None, start + QUIET));
        assert_eq!(at(&table, &card, start, 100), Health::Unhealthy);
    }

    #[test]
    fn after_a_lasting_error_neither_time_nor_an_answer_heals() {
        let (card, start) = (DeviceId::from("a"), Instant::now());
        let policy = ErrorPolicy { lasting: "79".parse().unwrap(), ..ErrorPolicy::default() };
        let mut table = HealthTable::new(QUIET, policy);
        table.answers(&card, true);
        assert!(table.xid(&card, Some(79), start));
        // it is reset, and answers again
        table.answers(&card, false);
        table.answers(&card, true);
        assert_eq!(at(&table, &card, start, 1_000_000), Health::Unhealthy);
    }

    #[test]
    fn a_card_that_does_not_answer_is_ill_until_it_does() {
        let (card, start) = (DeviceId::from("a"), Instant::now());
        let mut table = HealthTable::new(QUIET, ErrorPolicy::default());
        table.answers(&card, false);
        assert_eq!(at(&table, &card, start, 0), Health::Unhealthy);
        table.answers(&card, true);
        assert_eq!(at(&table, &card, start, 0), Health::Healthy);
    }

    #[test]
    fn instances_of_a_new_cut_have_the_errors_of_their_card() {
        let [card, old, new] = ["GPU-a", "MIG-1", "MIG-2"].map(DeviceId::from);
        let start = Instant::now();
        let mut table = HealthTable::new(QUIET, ErrorPolicy::default());
        table.inherit(&old, &card);
        table.answers(&old, true);
        assert_eq!(at(&table, &old, start, 0), Health::Healthy);
        for id in [&card, &old] {
            table.xid(id, Some(79), start);
        }
        table.forget(&old);
        table.inherit(&new, &card);
        table.answers(&new, true);
        assert_eq!(at(&table, &new, start, 1), Health::Unhealthy);
        assert_eq!(at(&table, &new, start, 60), Health::Healthy);
        assert!(!table.health(start).contains_key(&old));
    }
}
