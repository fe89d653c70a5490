//! kubelet's records of the devices that containers hold: its PodResources API and its checkpoint file.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use kerf_proto::podresources::ListPodResourcesRequest;
use kerf_proto::podresources::pod_resources_lister_client::PodResourcesListerClient;
use serde_json::Value;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;

use crate::node::Node;

/// Ids by pod, container and resource. PodResources names pods `namespace/name`, the checkpoint by uid.
pub type Books = BTreeMap<String, BTreeMap<String, BTreeMap<String, BTreeSet<String>>>>;

/// The GPU that a device id names.
pub fn card(id: &str) -> &str {
    id.rsplit_once("::").map_or(id, |(card, _)| card)
}

/// PodResources: all pods that kubelet lists, also those without devices.
///
/// # Errors
/// Where kubelet does not answer.
pub async fn pod_resources(node: &Node) -> anyhow::Result<Books> {
    let socket = node.kubelet_dir().join("pod-resources/kubelet.sock");
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
    let mut client = PodResourcesListerClient::new(channel).max_decoding_message_size(16 << 20);
    let list = client.list(ListPodResourcesRequest {}).await?.into_inner();
    let mut books = Books::new();
    for pod in list.pod_resources {
        let containers = books.entry(format!("{}/{}", pod.namespace, pod.name)).or_default();
        for container in pod.containers.into_iter().filter(|container| !container.devices.is_empty()) {
            let resources = containers.entry(container.name).or_default();
            for devices in container.devices {
                resources.entry(devices.resource_name).or_default().extend(devices.device_ids);
            }
        }
    }
    Ok(books)
}

/// The checkpoint, by uid of the pod; ordinary init containers are in it.
///
/// # Errors
/// Where the file is missing or has another form.
pub fn checkpoint(node: &Node) -> anyhow::Result<Books> {
    let path = node.kubelet_dir().join("device-plugins/kubelet_internal_checkpoint");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let value: Value = serde_json::from_str(&text)?;
    let entries = value["Data"]["PodDeviceEntries"].as_array().cloned().unwrap_or_default();
    let mut books = Books::new();
    for entry in entries {
        let field = |name: &str| entry[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        let ids = books
            .entry(field("PodUID")?)
            .or_default()
            .entry(field("ContainerName")?)
            .or_default()
            .entry(field("ResourceName")?)
            .or_default();
        // by NUMA node
        let groups = entry["DeviceIDs"].as_object().context("no DeviceIDs")?;
        let all = groups.values().filter_map(Value::as_array).flatten().filter_map(Value::as_str);
        ids.extend(all.map(str::to_owned));
    }
    Ok(books)
}
