//! MIG instances: partitions of a card in hardware, each listed as a card of its own. Pure, or reading below an injected
//! root. Instances are the administrator's to make; none is made here.

use std::path::{Path, PathBuf};

/// More instances than any card has.
const MOST: u32 = 100;

/// The index of the `place`-th instance of the card with this index: apart from all cards', and stable while the
/// instances are.
pub fn index(card: u32, place: u32) -> u32 {
    card.saturating_add(1).saturating_mul(MOST).saturating_add(place.min(MOST - 1))
}

/// Device files of an instance beside its card's, as paths on the host; those that are not there are left out. `instance`:
/// ids of the GPU instance and of the compute instance in it. The driver tells which file is whose in
/// `/proc/driver/nvidia-caps/mig-minors`.
pub fn nodes(dev_root: &Path, proc_root: &Path, card: u32, instance: (u32, u32)) -> Vec<PathBuf> {
    let minors = std::fs::read_to_string(proc_root.join("driver/nvidia-caps/mig-minors")).unwrap_or_default();
    let (gpu, compute) = instance;
    let names = [format!("gpu{card}/gi{gpu}/access"), format!("gpu{card}/gi{gpu}/ci{compute}/access")];
    let minor = |name: &String| {
        let line = minors.lines().find_map(|line| line.split_once(' ').filter(|(own, _)| own == name))?;
        line.1.trim().parse::<u32>().ok()
    };
    let file = |minor: u32| Path::new("nvidia-caps").join(format!("nvidia-cap{minor}"));
    let files = names.iter().filter_map(minor).map(file);
    files.filter(|file| dev_root.join(file).exists()).map(|file| Path::new("/dev").join(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_of_instances_are_no_cards() {
        assert_eq!([index(0, 0), index(0, 6), index(7, 1)], [100, 106, 801]);
    }

    #[test]
    fn an_instance_has_the_files_that_the_driver_names() {
        let root = tempfile::tempdir().unwrap();
        let caps = root.path().join("driver/nvidia-caps");
        std::fs::create_dir_all(&caps).unwrap();
        std::fs::create_dir_all(root.path().join("nvidia-caps")).unwrap();
        std::fs::write(
            caps.join("mig-minors"),
            "config 1\nmonitor 2\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\n",
        )
        .unwrap();
        for minor in [12, 13] {
            std::fs::write(root.path().join(format!("nvidia-caps/nvidia-cap{minor}")), "").unwrap();
        }
        let of = |card, instance| nodes(root.path(), root.path(), card, instance);
        let both = ["/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia-caps/nvidia-cap13"].map(PathBuf::from);
        assert_eq!(of(0, (1, 0)), both);
        assert_eq!(of(0, (1, 1)), both[..1]);
        assert_eq!(of(1, (1, 0)), Vec::<PathBuf>::new());
    }
}
