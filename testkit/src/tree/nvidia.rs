//! NVIDIA's files: `/proc/driver/nvidia`, the MIG instances' capabilities, `/dev/nvidia<N>`.

use serde::Deserialize;

use super::files::Files;

/// A GPU, with its MIG instances.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    minor: u32,
    /// `None`: only files in `dev`, as in a container without the driver's `/proc`.
    address: Option<String>,
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    model: String,
    #[serde(default)]
    numa: i64,
    /// What is bound to it; with another than `nvidia`, or with an empty name nothing, it is on the bus alone.
    #[serde(default = "own")]
    driver: String,
    /// Instances of a GPU in MIG mode.
    #[serde(default)]
    mig: Vec<Instance>,
}

fn own() -> String {
    "nvidia".to_owned()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Instance {
    gi: u32,
    ci: u32,
    /// Minors of the instance's two capability files.
    minors: [u32; 2],
}

impl Card {
    pub(super) fn write(&self, files: &Files) -> anyhow::Result<()> {
        let minor = self.minor;
        if let Some(address) = &self.address {
            let dir = files.pci(address, "0x10de", "0x20f1", "0x030200")?;
            files.text(&format!("{dir}/numa_node"), &self.numa.to_string())?;
            if !self.driver.is_empty() {
                files.link(&format!("{dir}/driver"), &format!("../../../bus/pci/drivers/{}", self.driver))?;
            }
        }
        if self.driver != own() {
            return Ok(());
        }
        for name in ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", &format!("nvidia{minor}")] {
            files.text(&format!("dev/{name}"), "")?;
        }
        for Instance { gi, ci, minors: [own, compute] } in &self.mig {
            let dir = format!("proc/driver/nvidia/capabilities/gpu{minor}/mig/gi{gi}");
            let access =
                |minor: &u32| format!("DeviceFileMinor: {minor}\nDeviceFileMode: 292\nDeviceFileModify: 1");
            files.text(&format!("{dir}/access"), &access(own))?;
            files.text(&format!("{dir}/ci{ci}/access"), &access(compute))?;
            for cap in [own, compute] {
                files.text(&format!("dev/nvidia-caps/nvidia-cap{cap}"), "")?;
            }
        }
        let Some(address) = &self.address else { return Ok(()) };
        let text = format!(
            "Model: \t\t {}\nIRQ:   \t\t 120\nGPU UUID: \t {}\nVideo BIOS: \t 92.00\nBus Type: \t PCIe\n\
             Bus Location: \t {address}\nDevice Minor: \t {minor}\nGPU Excluded:\t No",
            self.model, self.uuid,
        );
        files.text(&format!("proc/driver/nvidia/gpus/{address}/information"), &text)
    }
}
