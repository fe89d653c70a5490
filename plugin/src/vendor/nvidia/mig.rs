//! Instances of GPUs in MIG mode: partitions in hardware, each listed as a GPU of its own. Pure, or reading below a
//! given root: the driver's files in `/proc` name them, with their device files
//! `/dev/nvidia-caps/nvidia-cap<minor>`. The administrator creates instances; kerf creates none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::device::roots::{self, Fault, Roots};

/// More instances than any GPU has.
pub(super) const MOST: u32 = 100;

/// The ids of a GPU instance and of one of its compute instances.
pub(super) type Instance = (u32, u32);

/// Minors of the two files of an instance.
pub(super) type Minors = [u32; 2];

/// The index of the `place`-th instance of the GPU with this index: different from all GPUs' indices, and stable
/// while the instances exist.
pub fn index(card: u32, place: u32) -> u32 {
    card.saturating_add(1).saturating_mul(MOST).saturating_add(place.min(MOST - 1))
}

/// The ids in the older spelling of an instance's UUID, which drivers before 470 have: `MIG-GPU-<uuid>/<gi>/<ci>`.
pub(super) fn spelled(uuid: &str) -> Option<Instance> {
    let (rest, ci) = uuid.strip_prefix("MIG-GPU-")?.rsplit_once('/')?;
    let (_, gi) = rest.rsplit_once('/')?;
    Some((roots::suffix(gi, "")?, roots::suffix(ci, "")?))
}

/// Device files of an instance besides its GPU's, as paths on the host; missing files are left out.
pub(super) fn nodes(roots: &Roots, card: u32, instance: Instance) -> Vec<PathBuf> {
    let minors = table(roots).ok().and_then(|table| table.get(&(card, instance)).copied());
    minors.into_iter().flatten().filter_map(|minor| roots.node(&file(minor))).collect()
}

/// The name of a device file below `/dev`.
pub(super) fn file(minor: u32) -> String {
    format!("nvidia-caps/nvidia-cap{minor}")
}

/// Instances of GPU `minor` that exist: those with a directory below `capabilities/gpu<minor>/mig`, whose files
/// tell their minors.
///
/// # Errors
/// A missing or wrong file of an instance. A GPU that is not in MIG mode has no instances, which is not an error.
pub(super) fn of_card(roots: &Roots, minor: u32) -> Result<BTreeMap<Instance, Minors>, Fault> {
    let mig = roots.proc.join("driver/nvidia/capabilities").join(format!("gpu{minor}")).join("mig");
    let mut found = BTreeMap::new();
    for gi in roots::if_there(roots::numbered(&mig, "gi"))?.unwrap_or_default() {
        let dir = mig.join(format!("gi{gi}"));
        let own = device_minor(&dir.join("access"))?;
        for ci in roots::numbered(&dir, "ci")? {
            found.insert((gi, ci), [own, device_minor(&dir.join(format!("ci{ci}")).join("access"))?]);
        }
    }
    Ok(found)
}

/// Minors of all instances that could exist, from `nvidia-caps/mig-minors`: the kernel's table, by GPU.
pub(super) fn table(roots: &Roots) -> Result<BTreeMap<(u32, Instance), Minors>, Fault> {
    let path = roots.proc.join("driver/nvidia-caps/mig-minors");
    let text = roots::if_there(roots::text(&path))?.unwrap_or_default();
    let mut instances: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    let mut computes: Vec<((u32, Instance), u32)> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let wrong = || Fault::malformed(&path, line, "lines such as gpu0/gi1/ci0/access 13");
        let (name, minor) = line.rsplit_once(' ').ok_or_else(wrong)?;
        let minor: u32 = minor.parse().map_err(|_| wrong())?;
        let parts: Vec<&str> = name.split('/').collect();
        let number = |part: &str, prefix| roots::suffix(part, prefix).ok_or_else(wrong);
        match parts.as_slice() {
            ["config" | "monitor"] => {}
            [gpu, gi, "access"] => drop(instances.insert((number(gpu, "gpu")?, number(gi, "gi")?), minor)),
            [gpu, gi, ci, "access"] => {
                computes.push(((number(gpu, "gpu")?, (number(gi, "gi")?, number(ci, "ci")?)), minor));
            }
            _ => return Err(wrong()),
        }
    }
    let whole = |gpu, gi| instances.get(&(gpu, gi)).copied();
    let joined = computes.into_iter().filter_map(|(key @ (gpu, (gi, _)), ci)| Some((key, [whole(gpu, gi)?, ci])));
    Ok(joined.collect())
}

/// The number after `DeviceFileMinor:`.
fn device_minor(path: &Path) -> Result<u32, Fault> {
    let text = roots::text(path)?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("DeviceFileMinor:"));
    let minor = line.and_then(|number| number.trim().parse().ok());
    minor.ok_or_else(|| Fault::malformed(path, &text, "DeviceFileMinor: and a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_spelling_of_an_instance_has_its_ids() {
        assert_eq!(spelled("MIG-GPU-5c0d6a2e-94a5/7/2"), Some((7, 2)));
        for other in ["MIG-5c0d6a2e", "MIG-GPU-5c0d/7", "GPU-5c0d/7/2", "MIG-GPU-5c0d/7/x", "MIG-GPU-5c0d/07/2"] {
            assert_eq!(spelled(other), None, "{other}");
        }
    }

    #[test]
    fn indices_of_instances_are_no_cards() {
        assert_eq!([index(0, 0), index(0, 6), index(7, 1)], [100, 106, 801]);
    }
}
