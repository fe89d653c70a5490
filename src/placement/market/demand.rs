//! What a market learns from the pods that come and go.

use super::super::shape::Shape;
use super::host::Need;
use super::offer::Facts;
use super::outlook::Outlook;
use super::state::{Census, Class, Market, count_slots};
use super::totals::Totals;
use crate::policy::Policy;

impl Market {
    /// The class of a shape; a new one where it was not known.
    pub fn class(&mut self, shape: &Shape) -> Class {
        if let Some(known) = self.classes.get(shape) {
            return Class(*known);
        }
        let number = self.shapes.len();
        self.needs.push(Need::new(shape, &self.kinds));
        self.shapes.push(shape.clone());
        self.classes.insert(shape.clone(), number);
        self.census.counts.push(0);
        Class(number)
    }

    /// A pod of this class has come; it counts towards the outlook.
    pub fn arrived(&mut self, class: Class) {
        if let Some(count) = self.census.counts.get_mut(class.0) {
            *count += 1;
            self.census.total += 1;
        }
        if !self.census.due() {
            return;
        }
        self.census.turnover = self.census.left.min(self.census.total) as f64 / self.census.total as f64;
        if !self.census.known {
            self.census.learnt.clone_from(&self.census.counts);
            self.relearn();
        } else if self.census.left > 0 {
            self.outlook.turnover = self.census.turnover;
            // no other policy's books depend on it
            self.books.retain(|(policy, _), _| *policy != Policy::Fragmentation);
        }
    }

    /// A pod that had come has left. [`Market::give`] calls this itself.
    pub fn left(&mut self) {
        self.census.left += 1;
    }

    /// Gives the demand in advance, as how often each shape comes: from now on only the turnover is learnt.
    pub fn know(&mut self, demand: &[(Shape, u64)]) {
        for (shape, count) in demand {
            let class = self.class(shape);
            if let Some(sum) = self.census.counts.get_mut(class.0) {
                *sum += count;
            }
        }
        self.census.known = true;
        self.census.learnt.clone_from(&self.census.counts);
        self.relearn();
    }

    pub fn classes(&self) -> usize {
        self.shapes.len()
    }

    /// Forgets all demand. Every earlier [`Class`] becomes invalid.
    pub fn forget_demand(&mut self) {
        self.shapes.clear();
        self.classes.clear();
        self.needs.clear();
        self.census = Census::default();
        self.relearn();
    }

    pub(super) fn relearn(&mut self) {
        // classes that are newer than the last learning have no count in it
        self.census.learnt.resize(self.shapes.len(), 0);
        self.outlook = Outlook::learn(&self.shapes, &self.needs, &self.census.learnt, &self.kinds);
        self.outlook.turnover = self.census.turnover;
        self.books.clear();
        let rooms = self.outlook.rooms.len();
        self.totals = Totals::new(self.kinds.len(), rooms);
        self.slots = vec![0; self.hosts.len() * rooms];
        for (number, (host, facts)) in self.hosts.iter().zip(&mut self.facts).enumerate() {
            let slots = self.slots.get_mut(number * rooms..(number + 1) * rooms).unwrap_or_default();
            *facts = Facts::new(host, &self.outlook);
            count_slots(slots, &self.outlook.rooms, host);
            self.totals.change(host, facts, slots, u64::wrapping_add);
        }
    }
}
