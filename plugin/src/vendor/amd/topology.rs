//! The compute driver's view of the GPUs (KFD): `/sys/class/kfd/kfd/topology`.
//!
//! Each partition of a GPU is a node of its own. Its render minor joins a node to the rest of sysfs; `location_id`,
//! the PCI bus and device, joins it to its GPU. The lowest three bits of `location_id` count the partitions.

use std::collections::BTreeMap;
use std::path::Path;

use kerf::device::Link;
use kerf::units::Mib;

use crate::device::roots::{self, Fault};
use crate::device::scan::Scan;

/// `type` of a link over xGMI.
const XGMI: u64 = 11;
/// `type` of a link over PCIe.
const PCIE: u64 = 2;
/// `heap_type` of the system's own memory, which is not the GPU's.
const SYSTEM_HEAP: u64 = 0;

/// One GPU of the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Its PCI address without the function: `0000:0a:00`.
    pub(super) card: String,
    /// Sum of its memory banks; 0 where the driver lists none.
    pub(super) memory: Mib,
    /// Bytes in use, where the driver tells.
    pub(super) used: Option<u64>,
    /// Links to other nodes, by their number.
    pub(super) links: BTreeMap<u32, Link>,
    /// `gfx_target_version`, `simd_count`, `simd_per_cu`; older drivers do not have all of them.
    pub(super) gfx: Option<u64>,
    pub(super) simds: Option<u64>,
    pub(super) simds_per_cu: Option<u64>,
}

/// The GPUs of the topology with the numbers of their nodes, by render minor; without minors that two nodes claim.
pub(super) type Topology = BTreeMap<u32, (u32, Node)>;

/// Reads every node; a node that cannot be read gets a remark and is not a GPU.
pub(super) fn read(root: &Path, scan: &mut Scan) -> Result<Topology, Fault> {
    let nodes = root.join("nodes");
    let (mut topology, mut twice) = (Topology::new(), Vec::new());
    for number in roots::numbered(&nodes, "")? {
        let dir = nodes.join(number.to_string());
        let found = scan.noted(&format!("KFD node {number}"), node(&dir));
        let Some((minor, mut node)) = found else { continue };
        node.links = links(&dir, number, scan);
        if topology.insert(minor, (number, node)).is_some() {
            twice.push(minor);
        }
    }
    topology.retain(|minor, _| !twice.contains(minor));
    Ok(topology)
}

/// Lines of `key value`. Values are unsigned, of up to 64 bits.
pub(super) fn properties(path: &Path) -> Result<BTreeMap<String, u64>, Fault> {
    let text = roots::text(path)?;
    let line = |line: &str| {
        let (key, value) = line.split_once(char::is_whitespace)?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    let parsed = text
        .lines()
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| line(text).ok_or_else(|| Fault::malformed(path, text, "a key and a number")));
    parsed.collect()
}

fn value(properties: &BTreeMap<String, u64>, path: &Path, key: &'static str) -> Result<u64, Fault> {
    properties.get(key).copied().ok_or_else(|| Fault::malformed(path, "", key))
}

/// A node that is a GPU, with its render minor.
fn node(dir: &Path) -> Result<Option<(u32, Node)>, Fault> {
    let path = dir.join("properties");
    let properties = properties(&path)?;
    let known = |key: &str| properties.get(key).copied().filter(|value| *value > 0);
    let Some(minor) = known("drm_render_minor") else { return Ok(None) };
    let minor = u32::try_from(minor).map_err(|_| Fault::malformed(&path, &minor.to_string(), "a render minor"))?;
    let location = value(&properties, &path, "location_id")?;
    let domain = properties.get("domain").copied().unwrap_or(0);
    // the kernel numbers domains with 32 bits
    if location > 0xffff || domain > u64::from(u32::MAX) {
        return Err(Fault::malformed(&path, &format!("{domain} {location}"), "a PCI domain and location"));
    }
    let card = format!("{domain:04x}:{:02x}:{:02x}", (location >> 8) & 0xff, (location >> 3) & 0x1f);
    let (memory, used) = memory(&dir.join("mem_banks"))?;
    let (gfx, simds, simds_per_cu) = (known("gfx_target_version"), known("simd_count"), known("simd_per_cu"));
    Ok(Some((minor, Node { card, memory, used, links: BTreeMap::new(), gfx, simds, simds_per_cu })))
}

fn memory(banks: &Path) -> Result<(Mib, Option<u64>), Fault> {
    let (mut bytes, mut used) = (0u64, None);
    // partitions of some drivers have no memory banks
    for number in roots::if_there(roots::numbered(banks, ""))?.unwrap_or_default() {
        let bank = banks.join(number.to_string());
        let path = bank.join("properties");
        let properties = properties(&path)?;
        if properties.get("heap_type") == Some(&SYSTEM_HEAP) {
            continue;
        }
        bytes = bytes.saturating_add(value(&properties, &path, "size_in_bytes")?);
        if let Ok(in_use) = roots::number::<u64>(&bank.join("used_memory")) {
            used = Some(used.unwrap_or(0u64).saturating_add(in_use));
        }
    }
    Ok((Mib(bytes >> 20), used))
}

fn links(dir: &Path, from: u32, scan: &mut Scan) -> BTreeMap<u32, Link> {
    let mut links = BTreeMap::new();
    for kind in ["io_links", "p2p_links"] {
        let dir = dir.join(kind);
        // older drivers have no such directory
        for number in roots::numbered(&dir, "").unwrap_or_default() {
            let path = dir.join(number.to_string()).join("properties");
            let read = properties(&path).and_then(|properties| {
                Ok((value(&properties, &path, "node_to")?, value(&properties, &path, "type")?))
            });
            let (to, link) = match scan.noted(&format!("KFD node {from}"), read.map(Some)) {
                Some((to, XGMI)) => (to, Link::NvLink(1)),
                Some((to, PCIE)) => (to, Link::Node),
                _ => continue,
            };
            if let Ok(to) = u32::try_from(to) {
                let known = links.entry(to).or_insert(link);
                *known = link.max(*known);
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_64_bits_wide_without_a_sign() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("properties");
        std::fs::write(
            &path,
            "size_in_bytes 17163091968\nsimd_id_base 2147487744\nunique_id 14073402507705256556\n",
        )
        .unwrap();
        let read = properties(&path).unwrap();
        assert_eq!(read["size_in_bytes"], 17_163_091_968);
        assert_eq!(read["simd_id_base"], 2_147_487_744);
        assert_eq!(read["unique_id"], 14_073_402_507_705_256_556);
        assert!(value(&read, &path, "nothing").is_err());
        for bad in ["key", "key x", "key -1", "key 99999999999999999999"] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(properties(&path).unwrap_err().code(), "malformed-file", "{bad}");
        }
    }
}
