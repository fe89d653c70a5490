//! MIG instances: partitions of a card in hardware, each listed as a card of its own. Pure, or reading below an injected
//! root. Instances are the administrator's to make; none is made here.

use std::path::{Path, PathBuf};

use crate::device::roots::Roots;
use crate::vendor::nvidia::instances::{self, Instance};

/// More instances than any card has.
const MOST: u32 = 100;

/// The index of the `place`-th instance of the card with this index: apart from all cards', and stable while the
/// instances are.
pub fn index(card: u32, place: u32) -> u32 {
    card.saturating_add(1).saturating_mul(MOST).saturating_add(place.min(MOST - 1))
}

/// Device files of an instance beside its card's, as paths on the host; those that are not there are left out. `instance`:
/// ids of the GPU instance and of the compute instance in it.
pub(super) fn nodes(roots: &Roots, card: u32, (gi, ci): (u32, u32)) -> Vec<PathBuf> {
    let table = instances::table(roots).unwrap_or_default();
    let minors = table.get(&(card, Instance { gi, ci })).map(|minors| [minors.gi, minors.ci]);
    let files =
        minors.into_iter().flatten().map(|minor| Path::new("nvidia-caps").join(format!("nvidia-cap{minor}")));
    files.filter(|file| roots.dev.join(file).exists()).map(|file| Path::new("/dev").join(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_of_instances_are_no_cards() {
        assert_eq!([index(0, 0), index(0, 6), index(7, 1)], [100, 106, 801]);
    }
}
