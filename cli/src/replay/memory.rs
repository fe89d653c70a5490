//! A demand for card memory that is independent of the demand for compute, for traces that have none.
//!
//! Each share gets the size of another share of the trace, drawn at random, as its part of a card's memory. So memory
//! is asked for in the same sizes as compute, and as much of it in total, but the two are independent.

use std::str::FromStr;

use anyhow::ensure;
use kerf::placement::shape::Cards;
use kerf::replay::{Machine, Pod, Random};
use kerf::units::Mib;

/// Memory of cards: one size, and other sizes for some models.
#[derive(Clone, Debug)]
pub struct CardMemory {
    usual: Mib,
    models: Vec<(String, Mib)>,
}

impl FromStr for CardMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size = |text: &str| match text.trim().parse() {
            Ok(size @ 1..=16_777_216) => Ok(Mib(size)),
            _ => Err(format!("{text:?} is no card's memory in MiB")),
        };
        let mut memory = Self { usual: Mib(0), models: Vec::new() };
        for part in text.split(',') {
            match part.split_once('=') {
                Some((model, amount)) => memory.models.push((model.trim().into(), size(amount)?)),
                None => memory.usual = size(part)?,
            }
        }
        if memory.usual == Mib(0) {
            Err("names no size for models without one of their own".into())
        } else {
            Ok(memory)
        }
    }
}

impl CardMemory {
    /// Sets every card's memory and draws every share's.
    pub fn derive(&self, machines: &mut [Machine], pods: &mut [Pod], seed: u64) -> anyhow::Result<()> {
        for card in machines.iter_mut().flat_map(|machine| &mut machine.cards) {
            let own = self.models.iter().find(|(model, _)| **model == *card.model);
            card.memory = own.map_or(self.usual, |(_, memory)| *memory);
        }
        let mut by_name: Vec<&mut Pod> = pods.iter_mut().collect();
        by_name.sort_by(|a, b| a.name.cmp(&b.name));
        let sizes: Vec<u64> = by_name
            .iter()
            .filter_map(|pod| match pod.shape.cards {
                Cards::Share(share) => Some(share.compute.0.into()),
                _ => None,
            })
            .collect();
        ensure!(!sizes.is_empty(), "no pod asks for a share, so there is no memory to derive");
        let mut random = Random::new(seed);
        for pod in by_name {
            if let Cards::Share(share) = &mut pod.shape.cards {
                let size = sizes.get(random.below(sizes.len())).copied().unwrap_or_default();
                share.memory = Mib((self.usual.0 * size).div_ceil(1000));
            }
        }
        Ok(())
    }
}
