//! Seeds as people write them: `42-51`, `1,5,9`.

use std::str::FromStr;

/// In the order given.
#[derive(Clone, Debug)]
pub struct Seeds(pub Vec<u64>);

/// The most seeds: a bound on the work.
const MOST: u64 = 10_000;

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("{text:?} is no seed"));
        let mut seeds = Vec::new();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(part)?, number(part)?),
            };
            if first > last {
                return Err(format!("{part:?} is no range of seeds"));
            }
            if last - first >= MOST - seeds.len() as u64 {
                return Err(format!("more than {MOST} seeds"));
            }
            seeds.extend(first..=last);
        }
        Ok(Self(seeds))
    }
}
