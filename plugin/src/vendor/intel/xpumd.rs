//! Intel's XPU manager from version 2 on (xpumd), which judges the health of GPUs by rules of its own: memory,
//! temperature, power and others, each with a severity.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kerf_proto::xpumd::device_info_client::DeviceInfoClient;
use kerf_proto::xpumd::{DeviceHealth, SeverityLevel, WatchDeviceHealthRequest};

use crate::device::backend::HostDevice;
use crate::device::roots;
use crate::vendor::reporter::{blocking, connect};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xpumd {
    pub socket: PathBuf,
    /// From this severity on a GPU is unhealthy.
    pub severity: SeverityLevel,
}

impl Xpumd {
    /// Ids of unhealthy GPUs; `None` where it does not answer. Blocks; not to be called from an async task.
    pub(super) fn unhealthy(&self, hosts: &[HostDevice]) -> Option<Vec<String>> {
        let told: Option<BTreeSet<String>> = blocking(async {
            let mut client = DeviceInfoClient::new(connect(&self.socket).await?);
            // the first message is what xpumd knows now, and names no GPU before its first measurement
            let mut stream = client.watch_device_health(WatchDeviceHealthRequest {}).await.ok()?.into_inner();
            let devices = stream.message().await.ok()??.devices;
            Some(Some(devices.into_iter().filter_map(|device| self.unhealthy_address(device)).collect()))
        });
        let told = told?;
        let known = hosts.iter().filter(|host| !host.pci.is_empty() && told.contains(&host.pci));
        Some(known.map(|host| host.device.id.to_string()).collect())
    }

    /// The PCI address of a GPU of which something is bad enough.
    fn unhealthy_address(&self, device: DeviceHealth) -> Option<String> {
        let bad = device.health.iter().find(|status| status.severity >= i32::from(self.severity))?;
        let address = roots::short_domain(&device.info?.pci?.bdf);
        tracing::debug!(gpu = address, domain = bad.name, reason = bad.reason, "xpumd reports a GPU as unhealthy");
        Some(address)
    }
}
