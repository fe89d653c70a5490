//! Intel's files: `/sys/class/drm/card<N>` with the drivers `i915` and `xe`.

use serde::Deserialize;

use super::files::Files;

/// A GPU, or a virtual function of one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    address: String,
    card: u32,
    render: Option<u32>,
    #[serde(default = "intel")]
    vendor_id: String,
    #[serde(default = "tiger_lake")]
    device: String,
    /// `None`: no link to a driver.
    driver: Option<String>,
    numa: Option<i64>,
    sriov_numvfs: Option<String>,
    /// The GPU to which this virtual function belongs.
    physfn: Option<String>,
    #[serde(default)]
    tiles: u32,
    /// Bytes of local memory of one tile.
    memory: Option<u64>,
    /// Numbers of monitoring engines.
    #[serde(default)]
    mei: Vec<u32>,
    /// Whether there is a control node, too.
    #[serde(default)]
    control: bool,
}

fn intel() -> String {
    "0x8086".to_owned()
}

fn tiger_lake() -> String {
    "0x9a49".to_owned()
}

impl Card {
    pub(super) fn write(&self, files: &Files) -> anyhow::Result<()> {
        let address = &self.address;
        let dir = files.pci(address, &self.vendor_id, &self.device, "0x030000")?;
        files.graphics(&dir, address, self.card, self.render)?;
        if self.control {
            files.dir(&format!("{dir}/drm/controlD64"))?;
        }
        let driver = self.driver.as_deref();
        if let Some(driver) = driver {
            files.dir(&format!("sys/bus/pci/drivers/{driver}"))?;
            files.link(&format!("{dir}/driver"), &format!("../../../bus/pci/drivers/{driver}"))?;
        }
        if let Some(numa) = self.numa {
            files.text(&format!("{dir}/numa_node"), &numa.to_string())?;
        }
        if let Some(functions) = &self.sriov_numvfs {
            files.text(&format!("{dir}/sriov_numvfs"), functions)?;
        }
        if let Some(physical) = &self.physfn {
            files.link(&format!("{dir}/physfn"), &format!("../{physical}"))?;
        }
        let drm = format!("{dir}/drm/card{}", self.card);
        for tile in 0..self.tiles {
            files.dir(&match driver {
                Some("xe") => format!("{dir}/tile{tile}"),
                _ => format!("{drm}/gt/gt{tile}"),
            })?;
        }
        if let Some(memory) = self.memory {
            // i915 as Intel packages it tells that of one tile, xe that of each
            match driver {
                Some("xe") => {
                    for tile in 0..self.tiles.max(1) {
                        files.text(&format!("{dir}/tile{tile}/physical_vram_size_bytes"), &memory.to_string())?;
                    }
                }
                _ => files.text(&format!("{drm}/lmem_total_bytes"), &memory.to_string())?,
            }
        }
        for (at, number) in self.mei.iter().enumerate() {
            let engine = format!("{}.mei-gscfi.{}", driver.unwrap_or("i915"), 1024 + at);
            files.dir(&format!("{dir}/{engine}/mei/mei{number}"))?;
            files.text(&format!("dev/mei{number}"), "")?;
        }
        Ok(())
    }
}
