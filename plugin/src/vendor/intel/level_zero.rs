//! The Level-Zero sidecar of Intel's plugin, which knows health and temperature of GPUs, and the GPUs of a Windows
//! host.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kerf_proto::intel::levelzero_client::LevelzeroClient;
use kerf_proto::intel::{DeviceId as Address, GetIntelIndicesMessage};

use crate::base::socket::dial;
use crate::device::backend::HostDevice;
use crate::vendor::reporter::{PATIENCE, blocking, connect};

/// The sidecar, and when a GPU counts as unhealthy.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelZero {
    pub socket: PathBuf,
    /// A GPU that is hotter is unhealthy: as a whole, its compute units, its memory; in degrees Celsius.
    pub limits: [f64; 3],
}

impl LevelZero {
    /// Ids of unhealthy GPUs; `None` where it does not answer. Blocks; not to be called from an async task.
    pub(super) fn unhealthy(&self, hosts: &[HostDevice]) -> Option<Vec<String>> {
        blocking(async {
            let mut unhealthy = Vec::new();
            let mut client = LevelzeroClient::new(connect(&self.socket).await?);
            for host in hosts.iter().filter(|host| !host.pci.is_empty()) {
                let address = || Address { bdf_address: host.pci.clone() };
                let health = client.get_device_health(address()).await.map(tonic::Response::into_inner);
                let broken = health.is_ok_and(|health| {
                    health.error.is_none() && !(health.memory_ok && health.bus_ok && health.soc_ok)
                });
                let heat = client.get_device_temperature(address()).await.map(tonic::Response::into_inner);
                let hot = heat.is_ok_and(|heat| {
                    let told = [heat.global, heat.gpu, heat.memory];
                    heat.error.is_none() && told.iter().zip(self.limits).any(|(told, limit)| *told > limit)
                });
                if broken || hot {
                    unhealthy.push(host.device.id.to_string());
                }
            }
            Some(Some(unhealthy))
        })
    }
}

/// The indices by which Level Zero knows the GPUs. Blocks; not to be called from an async task.
///
/// # Errors
/// Why there is no answer.
pub fn indices(socket: &Path) -> Result<BTreeSet<u32>, String> {
    let asked = async {
        let channel = dial(socket).await.map_err(|error| error.to_string())?;
        let answer = LevelzeroClient::new(channel).get_intel_indices(GetIntelIndicesMessage {}).await;
        let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
        match answer.error {
            Some(error) => Err(error.description),
            None => Ok(answer.indices.into_iter().collect()),
        }
    };
    blocking(async { Some(Some(asked.await)) }).unwrap_or_else(|| Err(format!("no answer within {PATIENCE:?}")))
}
