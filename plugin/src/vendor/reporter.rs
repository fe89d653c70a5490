//! Programs of the vendors that know more about a card's health than its files: asked over a socket, each look anew.
//!
//! Only an explicit bad report makes a card ill. A program that is not there, is slow or does not know the card says
//! nothing.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kerf::device::Health;
use kerf_proto::amd::Nothing;
use kerf_proto::amd::metrics_service_client::MetricsServiceClient;
use kerf_proto::intel::levelzero_client::LevelzeroClient;
use kerf_proto::intel::{DeviceId as Address, GetIntelIndicesMessage};
use tonic::transport::Channel;

use crate::base::socket::dial;
use crate::device::backend::HostDevice;

/// All questions of one look must be answered within this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Reporter {
    /// AMD's metrics exporter.
    Exporter(PathBuf),
    /// The Level-Zero sidecar of Intel's plugin.
    LevelZero {
        /// Its socket.
        socket: PathBuf,
        /// From which temperatures on a card is ill.
        limits: Temperatures,
    },
}

/// In degrees Celsius; a card that is hotter is ill.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperatures {
    /// Of the card.
    pub card: f64,
    /// Of its compute units.
    pub gpu: f64,
    /// Of its memory.
    pub memory: f64,
}

impl Reporter {
    /// Makes those of `hosts` ill that are reported so. Blocks; not to be called from an async task.
    pub fn apply(&self, hosts: &mut [HostDevice]) {
        let ill = match self {
            Self::Exporter(socket) => blocking(exporter(socket)),
            Self::LevelZero { socket, limits } => blocking(level_zero(socket, hosts, limits)),
        };
        for host in hosts.iter_mut().filter(|host| ill.contains(host.device.id.as_str())) {
            host.device.health = Health::Unhealthy;
        }
    }
}

/// Nothing where there is no answer in time.
fn blocking<T: Default>(question: impl Future<Output = Option<T>>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return T::default() };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, question).await }).ok().flatten().unwrap_or_default()
}

async fn connect(socket: &Path) -> Option<Channel> {
    let connected = dial(socket).await;
    connected.inspect_err(|error| tracing::debug!(socket = %socket.display(), %error, "no report of health")).ok()
}

/// Ids that are ill.
async fn exporter(socket: &Path) -> Option<BTreeSet<String>> {
    let mut client = MetricsServiceClient::new(connect(socket).await?);
    let states = client.list(Nothing {}).await.ok()?.into_inner().gpu_state;
    Some(states.into_iter().filter(|state| state.health == "unhealthy").map(|state| state.device).collect())
}

/// By which indices Level Zero knows Intel's cards. Blocks; not to be called from an async task.
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

async fn level_zero(socket: &Path, hosts: &[HostDevice], limits: &Temperatures) -> Option<BTreeSet<String>> {
    let mut client = LevelzeroClient::new(connect(socket).await?);
    let mut ill = BTreeSet::new();
    for host in hosts.iter().filter(|host| !host.pci.is_empty()) {
        let address = || Address { bdf_address: host.pci.clone() };
        let health = client.get_device_health(address()).await.map(tonic::Response::into_inner);
        let broken = health
            .is_ok_and(|health| health.error.is_none() && !(health.memory_ok && health.bus_ok && health.soc_ok));
        let heat = client.get_device_temperature(address()).await.map(tonic::Response::into_inner);
        let hot = heat.is_ok_and(|heat| {
            let above = heat.global > limits.card || heat.gpu > limits.gpu || heat.memory > limits.memory;
            heat.error.is_none() && above
        });
        if broken || hot {
            ill.insert(host.device.id.to_string());
        }
    }
    Some(ill)
}
