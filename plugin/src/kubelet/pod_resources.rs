//! kubelet's list of pods, and of the ids that their containers hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kerf::annotation::Keys;
use kerf::ids::PodRef;
use kerf_proto::podresources::pod_resources_lister_client::PodResourcesListerClient;
use kerf_proto::podresources::{ListPodResourcesRequest, ListPodResourcesResponse};
use tokio::time::timeout;

use crate::allocation::{ContainerResources, Listing, OtherDomain};
use crate::base::socket::{MAX_MESSAGE_BYTES, dial};
use crate::device::ids::{self, Ids, Resource};
use crate::roster::Roster;

/// kubelet answers within this time, or not at all.
const DEADLINE: Duration = Duration::from_secs(3);

/// Why kubelet's list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("kubelet's pod resources: no answer within {DEADLINE:?}")]
    Deadline(#[from] tokio::time::error::Elapsed),
    /// The socket does not exist, or no process listens.
    #[error("kubelet's pod resources cannot be reached")]
    Connect(#[from] tonic::transport::Error),
    /// kubelet refused.
    #[error("kubelet's pod resources: {0}")]
    Refused(#[from] Box<tonic::Status>),
}

/// Asks the kubelet that listens at `socket`.
///
/// # Errors
/// Where it does not answer.
pub async fn list(socket: &Path) -> Result<ListPodResourcesResponse, ListError> {
    let answered = async {
        let channel = dial(socket).await?;
        let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(client.list(ListPodResourcesRequest {}).await.map_err(Box::new)?.into_inner())
    };
    timeout(DEADLINE, answered).await?
}

/// The answer as a value, for the GPUs of `roster`.
pub fn listing(response: ListPodResourcesResponse, roster: &Roster, keys: &Keys) -> Listing {
    let mut listing = Listing::default();
    for pod in response.pod_resources {
        let reference = PodRef::new(pod.namespace, pod.name);
        for container in pod.containers {
            // a resource comes once for each NUMA node
            let mut held: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
            for devices in container.devices.iter().filter(|devices| !devices.device_ids.is_empty()) {
                held.entry(&devices.resource_name).or_default().extend(&devices.device_ids);
            }
            let known = |(name, ids): (&str, Vec<&String>)| {
                let resource = roster.resource(name, keys)?;
                let ids = roster.spell(&resource, ids);
                Some((resource, ids))
            };
            let foreign = held.iter().find(|(name, ids)| foreign(name, &keys.core, ids));
            if let Some((name, _)) = foreign {
                listing.other_domain = Some(OtherDomain { pod: reference.clone(), resource: (*name).to_owned() });
            }
            let ids: BTreeMap<Resource, Ids> = held.into_iter().filter_map(known).collect();
            if !ids.is_empty() {
                let container = container.name.as_str().into();
                listing.held.push(ContainerResources { pod: reference.clone(), container, ids });
            }
        }
        listing.pods.insert(reference);
    }
    listing
}

/// Whether these are ids in kerf's form under another resource domain than that of `core`.
fn foreign(name: &str, core: &str, ids: &[&String]) -> bool {
    let word = |name: &str| name.rsplit_once('/').map(|(_, word)| word.to_owned());
    name != core && word(name) == word(core) && ids.iter().any(|id| ids::card(id).is_some())
}
