//! Instances of GPUs in MIG mode, as the driver's files in `/proc` name them, with their device files
//! `/dev/nvidia-caps/nvidia-cap<minor>`.

use std::collections::BTreeMap;

use crate::device::roots::{self, Fault, Roots};

/// A GPU instance with one of its compute instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instance {
    pub(super) gi: u32,
    pub(super) ci: u32,
}

/// Minors of an instance's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Minors {
    pub(super) gi: u32,
    pub(super) ci: u32,
}

/// Instances of GPU `minor` that exist: those with a directory below `capabilities/gpu<minor>/mig`, whose files
/// tell their minors.
///
/// # Errors
/// A missing or wrong file of an instance. A GPU that is not in MIG mode has no instances, which is not an error.
pub(super) fn of_card(roots: &Roots, minor: u32) -> Result<BTreeMap<Instance, Minors>, Fault> {
    let mig = roots.proc.join("driver/nvidia/capabilities").join(format!("gpu{minor}")).join("mig");
    let mut found = BTreeMap::new();
    let instances = match roots::numbered(&mig, "gi") {
        Ok(instances) => instances,
        Err(Fault::Missing(_)) => return Ok(found),
        Err(fault) => return Err(fault),
    };
    for gi in instances {
        let dir = mig.join(format!("gi{gi}"));
        let own = device_minor(&dir.join("access"))?;
        for ci in roots::numbered(&dir, "ci")? {
            let minors = Minors { gi: own, ci: device_minor(&dir.join(format!("ci{ci}")).join("access"))? };
            found.insert(Instance { gi, ci }, minors);
        }
    }
    Ok(found)
}

/// Minors of all instances that could exist, from `nvidia-caps/mig-minors`: the kernel's table, by GPU.
pub(super) fn table(roots: &Roots) -> Result<BTreeMap<(u32, Instance), Minors>, Fault> {
    let path = roots.proc.join("driver/nvidia-caps/mig-minors");
    let text = match roots::text(&path) {
        Ok(text) => text,
        Err(Fault::Missing(_)) => return Ok(BTreeMap::new()),
        Err(fault) => return Err(fault),
    };
    let mut instances: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    let mut computes: BTreeMap<(u32, Instance), u32> = BTreeMap::new();
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
                let instance = Instance { gi: number(gi, "gi")?, ci: number(ci, "ci")? };
                computes.insert((number(gpu, "gpu")?, instance), minor);
            }
            _ => return Err(wrong()),
        }
    }
    let joined = computes.into_iter().filter_map(|((gpu, instance), ci)| {
        let gi = instances.get(&(gpu, instance.gi))?;
        Some(((gpu, instance), Minors { gi: *gi, ci }))
    });
    Ok(joined.collect())
}

/// The number after `DeviceFileMinor:`.
fn device_minor(path: &std::path::Path) -> Result<u32, Fault> {
    let text = roots::text(path)?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("DeviceFileMinor:"));
    let minor = line.and_then(|number| number.trim().parse().ok());
    minor.ok_or_else(|| Fault::malformed(path, &text, "DeviceFileMinor: and a number"))
}
