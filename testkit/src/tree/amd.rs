//! AMD's files: the PCI devices of `amdgpu`, platform devices of further partitions, and the compute topology.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::files::Files;

/// A GPU, whole or in compute partitions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    address: String,
    card: u32,
    render: u32,
    #[serde(default = "vega")]
    device: String,
    #[serde(default)]
    product: String,
    #[serde(default)]
    numa: i64,
    /// Bytes of one partition; `None`: no memory bank.
    memory: Option<u64>,
    used: Option<u64>,
    /// Compute and memory mode, as `["CPX", "NPS4"]`; `None`: the GPU cannot be partitioned.
    modes: Option<[String; 2]>,
    #[serde(default = "one")]
    partitions: u32,
    /// Number of the platform device of its second partition.
    #[serde(default)]
    xcp: u32,
    /// What is before that number in the device's name: `_`, or `.` with kernels before May 2024.
    #[serde(default = "underscore")]
    mark: String,
    /// GPUs with the same number reach each other over xGMI.
    hive: Option<u64>,
    /// Further lines of each node's `properties`.
    #[serde(default)]
    properties: BTreeMap<String, u64>,
}

fn vega() -> String {
    "0x6860".to_owned()
}

fn one() -> u32 {
    1
}

fn underscore() -> String {
    "_".to_owned()
}

/// A node of the compute topology.
struct Node<'a> {
    card: &'a Card,
    render: u32,
    partition: u32,
}

pub(super) fn write(files: &Files, cpus: u32, cards: &[&Card]) -> anyhow::Result<()> {
    if cards.is_empty() {
        return Ok(());
    }
    files.text("dev/kfd", "")?;
    let mut nodes = Vec::new();
    for card in cards {
        card.device(files)?;
        for partition in 0..card.partitions {
            let (number, render) = (card.card + partition, card.render + partition);
            nodes.push(Node { card, render, partition });
            if partition > 0 {
                let name = format!("amdgpu_xcp{}{}", card.mark, card.xcp + partition - 1);
                let dir = format!("sys/devices/platform/{name}");
                files.link(
                    &format!("sys/bus/platform/devices/{name}"),
                    &format!("../../../devices/platform/{name}"),
                )?;
                for node in [format!("card{number}"), format!("renderD{render}")] {
                    files.link(&format!("{dir}/drm/{node}/device"), &format!("../../../{name}"))?;
                    files.link(
                        &format!("sys/class/drm/{node}"),
                        &format!("../../devices/platform/{name}/drm/{node}"),
                    )?;
                    files.text(&format!("dev/dri/{node}"), "")?;
                }
            }
        }
    }
    let cpus = cpus.max(1);
    let topology = |node: u32| format!("sys/class/kfd/kfd/topology/nodes/{node}");
    for cpu in 0..cpus {
        files.text(
            &format!("{}/properties", topology(cpu)),
            "cpu_cores_count 20\nsimd_count 0\ndrm_render_minor 0",
        )?;
    }
    for (number, node) in (cpus..).zip(&nodes) {
        node.write(files, &topology(number))?;
        for (other, peer) in (cpus..).zip(&nodes).filter(|(other, _)| *other != number) {
            let xgmi = std::ptr::eq(node.card, peer.card)
                || node.card.hive.is_some_and(|hive| peer.card.hive == Some(hive));
            let (kind, place, weight) = if xgmi { (11, "io_links", 15) } else { (2, "p2p_links", 72) };
            let link = format!("type {kind}\nnode_from {number}\nnode_to {other}\nweight {weight}");
            files.text(&format!("{}/{place}/{}/properties", topology(number), other + 1), &link)?;
        }
        let link = format!("type 2\nnode_from {number}\nnode_to 0\nweight 20");
        files.text(&format!("{}/io_links/0/properties", topology(number)), &link)?;
    }
    Ok(())
}

impl Card {
    fn device(&self, files: &Files) -> anyhow::Result<()> {
        let address = &self.address;
        let dir = files.pci(address, "0x1002", &self.device, "0x038000")?;
        files.text(&format!("{dir}/numa_node"), &self.numa.to_string())?;
        if !self.product.is_empty() {
            files.text(&format!("{dir}/product_name"), &self.product)?;
        }
        if let Some([compute, memory]) = &self.modes {
            files.text(&format!("{dir}/current_compute_partition"), compute)?;
            files.text(&format!("{dir}/current_memory_partition"), memory)?;
            files.text(&format!("{dir}/available_compute_partition"), "SPX, DPX, QPX, CPX")?;
            files.text(&format!("{dir}/available_memory_partition"), "NPS1, NPS4")?;
        }
        files.graphics(&dir, address, self.card, Some(self.render))?;
        let target = dir.strip_prefix("sys/").unwrap_or(&dir);
        files.link(&format!("{dir}/driver"), "../../../bus/pci/drivers/amdgpu")?;
        files.link(&format!("sys/bus/pci/drivers/amdgpu/{address}"), &format!("../../../../{target}"))?;
        files.link("sys/module/amdgpu/drivers/pci:amdgpu", "../../../bus/pci/drivers/amdgpu")
    }

    /// PCI domain, and bus, device and function in the form of `location_id`.
    fn location(&self) -> (u64, u64) {
        let part = |part: Option<&str>| u64::from_str_radix(part.unwrap_or("0"), 16).unwrap_or(0);
        let mut parts = self.address.split([':', '.']);
        let (domain, bus, device, function) = (parts.next(), parts.next(), parts.next(), parts.next());
        (part(domain), part(bus) << 8 | part(device) << 3 | part(function))
    }
}

impl Node<'_> {
    fn write(&self, files: &Files, dir: &str) -> anyhow::Result<()> {
        let (domain, location) = self.card.location();
        let device = u64::from_str_radix(self.card.device.trim_start_matches("0x"), 16)?;
        let mut lines: BTreeMap<String, u64> = BTreeMap::from(
            [
                ("cpu_cores_count", 0),
                ("simd_count", 256),
                ("simd_per_cu", 4),
                ("vendor_id", 4098),
                ("device_id", device),
                ("domain", domain),
                ("location_id", location + u64::from(self.partition)),
                ("drm_render_minor", u64::from(self.render)),
                ("hive_id", self.card.hive.unwrap_or(0)),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        lines.extend(self.card.properties.clone());
        let text: String = lines.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
        files.text(&format!("{dir}/properties"), &text)?;
        if let Some(memory) = self.card.memory {
            files
                .text(&format!("{dir}/mem_banks/0/properties"), &format!("heap_type 1\nsize_in_bytes {memory}"))?;
            if let Some(used) = self.card.used {
                files.text(&format!("{dir}/mem_banks/0/used_memory"), &used.to_string())?;
            }
        }
        Ok(())
    }
}
