//! Unallocated compute against demand.

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Demand that had come, in percent of the cluster's cards, rounded.
    pub arrived: u64,
    /// Compute that was not allocated, in percent of the cluster's cards: the mean over all pods that came at this
    /// demand.
    pub unallocated: f64,
}

/// For each percent of demand, the mean of what was unallocated after the pods that came at it: the method of the
/// published figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// By percent: how many pods, and the sum of what was unallocated after each.
    sums: Vec<(u64, f64)>,
}

impl Curve {
    /// Adds the state after one more pod: demand that has come, compute in use, and all compute, in thousandths of a
    /// card.
    pub(super) fn add(&mut self, arrived: u64, used: u64, capacity: u64) {
        /// In percent, far beyond any demand of interest: a bound on memory for endless workloads.
        const MOST: usize = 1000;
        if capacity == 0 {
            return;
        }
        let percent = |part: u64| 100.0 * part as f64 / capacity as f64;
        let at = percent(arrived).round_ties_even() as usize;
        if at > MOST {
            return;
        }
        if self.sums.len() <= at {
            self.sums.resize(at + 1, (0, 0.0));
        }
        if let Some((count, sum)) = self.sums.get_mut(at) {
            *count += 1;
            *sum += 100.0 - (percent(used) * 100.0).round_ties_even() / 100.0;
        }
    }

    /// In order of demand.
    pub fn points(&self) -> impl Iterator<Item = Point> {
        let point =
            |(arrived, (count, sum)): (u64, &(u64, f64))| Point { arrived, unallocated: sum / *count as f64 };
        (0..).zip(&self.sums).filter(|(_, (count, _))| *count > 0).map(point)
    }

    /// What was unallocated at this demand, in percent; `None` where no pod came at it.
    pub fn at(&self, arrived: u64) -> Option<f64> {
        self.points().find(|point| point.arrived == arrived).map(|point| point.unallocated)
    }
}
