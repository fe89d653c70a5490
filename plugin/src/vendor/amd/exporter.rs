//! AMD's metrics exporter, which knows the health of GPUs.

use std::collections::BTreeSet;
use std::path::Path;

use kerf_proto::amd::Nothing;
use kerf_proto::amd::metrics_service_client::MetricsServiceClient;

use crate::vendor::reporter::{blocking, connect};

/// Ids of unhealthy GPUs. Blocks; not to be called from an async task.
pub(super) fn unhealthy(socket: &Path) -> BTreeSet<String> {
    blocking(async {
        let mut client = MetricsServiceClient::new(connect(socket).await?);
        let states = client.list(Nothing {}).await.ok()?.into_inner().gpu_state;
        Some(states.into_iter().filter(|state| state.health == "unhealthy").map(|state| state.device).collect())
    })
}
