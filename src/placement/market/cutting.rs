//! What a share of a card is worth, and what a remainder of one is: the prices of a cutting-stock problem.
//!
//! "Fewest cards that host all demand for shares" is a linear program over the ways in which one card can be cut. Its
//! dual gives each share a price such that no cut of a card is worth more than one card. A remainder is then worth
//! the best that can still be cut from it, which is nothing for one too small for any share, and less than its size
//! where no shares fill it well.
//!
//! The program is solved by generating columns (Gilmore and Gomory, 1961): the best cut at the current prices is a
//! knapsack, and enters the basis while it is worth more than a card.

/// A share in steps of the grid, and the number of pods that ask for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Steps of compute, at least one.
    pub compute: usize,
    /// Steps of memory; zero where memory is not counted.
    pub memory: usize,
    /// How many pods ask for it, at least one.
    pub count: u64,
}

/// The worth of each remainder of a card; a whole card is worth 1.
#[derive(Clone, Debug)]
pub(super) struct Cuts {
    width: usize,
    worth: Vec<f64>,
}

/// More exchanges of the basis than a program of this size needs: a bound on the work.
const MOST_ROUNDS: usize = 400;
const EPSILON: f64 = 1e-9;

impl Cuts {
    /// Prices `items`, each of which fits on a card of `compute` by `memory` steps.
    pub fn solve(items: &[Item], compute: usize, memory: usize) -> Self {
        let mut basis = Basis::new(items, compute, memory);
        let mut cuts = Self { width: memory + 1, worth: vec![0.0; (compute + 1) * (memory + 1)] };
        for _ in 0..MOST_ROUNDS {
            let prices = basis.prices();
            cuts.fill(items, &prices);
            if cuts.at(compute, memory) <= 1.0 + EPSILON || !basis.enter(&cuts.best(items, &prices)) {
                break;
            }
        }
        // where the rounds were not enough, scale the prices down so that no cut is worth more than a card
        let most = cuts.at(compute, memory);
        if most > 1.0 {
            cuts.worth.iter_mut().for_each(|worth| *worth /= most);
        }
        cuts
    }

    /// The worth of a remainder; compute and memory in steps.
    pub fn at(&self, compute: usize, memory: usize) -> f64 {
        self.worth.get(compute * self.width + memory.min(self.width - 1)).copied().unwrap_or_default()
    }

    /// The knapsack: for every remainder the most that can be cut from it at these prices.
    fn fill(&mut self, items: &[Item], prices: &[f64]) {
        let width = self.width;
        self.worth.fill(0.0);
        for (at, memory) in (0..self.worth.len()).map(|at| (at, at % width)) {
            let (done, rest) = self.worth.split_at_mut(at);
            let Some(cell) = rest.first_mut() else { break };
            let before = |back: usize| at.checked_sub(back).and_then(|from| done.get(from)).copied();
            let mut best = before(width).unwrap_or(0.0);
            if memory > 0 {
                best = best.max(before(1).unwrap_or(0.0));
            }
            for (item, price) in items.iter().zip(prices) {
                if item.memory <= memory
                    && let Some(rest) = before(item.compute * width + item.memory)
                {
                    best = best.max(rest + price);
                }
            }
            *cell = best;
        }
    }

    /// How many of each item the best cut of a whole card has.
    fn best(&self, items: &[Item], prices: &[f64]) -> Vec<f64> {
        let mut cut = vec![0.0; items.len()];
        let (mut compute, mut memory) = (self.worth.len() / self.width - 1, self.width - 1);
        while self.at(compute, memory) > EPSILON {
            let worth = self.at(compute, memory);
            let taken = items.iter().zip(prices).zip(&mut cut).find(|((item, price), _)| {
                item.compute <= compute
                    && item.memory <= memory
                    && self.at(compute - item.compute, memory - item.memory) + **price >= worth - EPSILON * 1e-3
                    && **price > 0.0
            });
            match taken {
                Some(((item, _), number)) => {
                    *number += 1.0;
                    compute -= item.compute;
                    memory -= item.memory;
                }
                None if memory > 0 && self.at(compute, memory - 1) >= worth => memory -= 1,
                None if compute > 0 => compute -= 1,
                None => break,
            }
        }
        cut
    }
}

/// The basis of the program: one cut for each item, as the inverse of their matrix.
struct Basis {
    /// By row.
    inverse: Vec<Vec<f64>>,
    /// How many cards are cut in each of the basis' ways.
    level: Vec<f64>,
}

impl Basis {
    /// The first basis: each item alone on its cards.
    fn new(items: &[Item], compute: usize, memory: usize) -> Self {
        let alone = |item: &Item| {
            let by_memory = memory.checked_div(item.memory).unwrap_or(usize::MAX);
            (compute / item.compute.max(1)).min(by_memory).max(1) as f64
        };
        let row = |(at, item): (usize, &Item)| {
            let mut row = vec![0.0; items.len()];
            if let Some(cell) = row.get_mut(at) {
                *cell = 1.0 / alone(item);
            }
            row
        };
        let inverse = items.iter().enumerate().map(row).collect();
        let level = items.iter().map(|item| item.count as f64 / alone(item)).collect();
        Self { inverse, level }
    }

    /// Each cut costs one card, so the prices are the sums of the inverse's columns. A price below zero would mean
    /// that an item could be left out of a cut for gain; it is worth nothing then.
    fn prices(&self) -> Vec<f64> {
        let mut prices = vec![0.0; self.level.len()];
        for row in &self.inverse {
            prices.iter_mut().zip(row).for_each(|(price, cell)| *price += cell);
        }
        prices.iter_mut().for_each(|price| *price = price.max(0.0));
        prices
    }

    /// Puts a cut into the basis in place of the one that it displaces first. False where it displaces none.
    fn enter(&mut self, cut: &[f64]) -> bool {
        let dot = |row: &Vec<f64>| row.iter().zip(cut).map(|(a, b)| a * b).sum::<f64>();
        let change: Vec<f64> = self.inverse.iter().map(dot).collect();
        let ratios = change.iter().zip(&self.level).enumerate().filter(|(_, (change, _))| **change > EPSILON);
        let leaving = ratios.map(|(at, (change, level))| (level / change, at)).min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((amount, leaving)) = leaving else { return false };
        let Some(pivot) = change.get(leaving) else { return false };
        let Some(mut row) = self.inverse.get_mut(leaving).map(std::mem::take) else { return false };
        row.iter_mut().for_each(|cell| *cell /= pivot);
        for (at, (other, change)) in self.inverse.iter_mut().zip(&change).enumerate() {
            if at != leaving {
                other.iter_mut().zip(&row).for_each(|(cell, entering)| *cell -= change * entering);
            }
        }
        for (at, (level, change)) in self.level.iter_mut().zip(&change).enumerate() {
            *level = if at == leaving { amount } else { (*level - change * amount).max(0.0) };
        }
        if let Some(place) = self.inverse.get_mut(leaving) {
            *place = row;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(compute: usize, memory: usize, count: u64) -> Item {
        Item { compute, memory, count }
    }

    #[test]
    fn halves_and_thirds_have_the_prices_of_what_they_fill() {
        let cuts = Cuts::solve(&[item(50, 0, 10), item(33, 0, 30)], 100, 0);
        assert!((cuts.at(50, 0) - 0.5).abs() < 1e-9);
        assert!((cuts.at(33, 0) - 1.0 / 3.0).abs() < 1e-9);
        assert!((cuts.at(99, 0) - 1.0).abs() < 1e-9);
        assert!(cuts.at(32, 0).abs() < 1e-9, "nothing fits");
    }

    #[test]
    fn a_remainder_is_never_worth_more_than_a_larger_one_or_than_a_card() {
        let items = [item(7, 3, 5), item(30, 40, 100), item(45, 10, 77), item(81, 12, 200), item(5, 60, 9)];
        let cuts = Cuts::solve(&items, 100, 64);
        for compute in 0..=100 {
            for memory in 0..=64 {
                let worth = cuts.at(compute, memory);
                assert!((0.0..=1.0 + 1e-9).contains(&worth));
                assert!(compute == 0 || cuts.at(compute - 1, memory) <= worth);
                assert!(memory == 0 || cuts.at(compute, memory - 1) <= worth);
            }
        }
    }

    #[test]
    fn memory_in_proportion_changes_no_price() {
        let sizes = [(5, 9), (11, 100), (32, 40), (44, 60), (65, 50), (81, 400)];
        let flat: Vec<Item> = sizes.iter().map(|(size, count)| item(*size, 0, *count)).collect();
        let tall: Vec<Item> = sizes.iter().map(|(size, count)| item(*size, *size, *count)).collect();
        let (flat, tall) = (Cuts::solve(&flat, 100, 0), Cuts::solve(&tall, 100, 100));
        for left in 0..=100 {
            assert!((flat.at(left, 0) - tall.at(left, left)).abs() < 1e-9, "{left}");
        }
    }
}
