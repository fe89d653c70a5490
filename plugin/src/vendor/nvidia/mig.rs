//! MIG instances: partitions of a GPU in hardware, each listed as a GPU of its own. Pure, or reading below a given
//! root. The administrator creates instances; kerf creates none.

use std::path::{Path, PathBuf};

use crate::device::roots::Roots;
use crate::vendor::nvidia::instances::{self, Instance};

/// More instances than any GPU has.
const MOST: u32 = 100;

/// The index of the `place`-th instance of the GPU with this index: different from all GPUs' indices, and stable
/// while the instances exist.
pub fn index(card: u32, place: u32) -> u32 {
    card.saturating_add(1).saturating_mul(MOST).saturating_add(place.min(MOST - 1))
}

/// Device files of an instance besides its GPU's, as paths on the host; missing files are left out. `instance`: ids
/// of the GPU instance and of the compute instance in it.
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
