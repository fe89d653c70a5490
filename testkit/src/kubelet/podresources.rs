//! The pod resources service: the content of the books in the form of its API.

use std::sync::Arc;

use kerf_proto::deviceplugin::TopologyInfo as DeviceTopology;
use kerf_proto::podresources::pod_resources_lister_server::PodResourcesLister;
use kerf_proto::podresources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices, ContainerResources,
    GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse, NumaNode,
    PodResources, TopologyInfo,
};
use tonic::{Request, Response, Status};

use super::books::{Books, PodBook};
use super::shared::Shared;
use crate::api::object;

/// Serves `pod-resources/kubelet.sock`.
#[derive(Clone, Debug)]
pub(crate) struct Lister(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        let books = self.0.books();
        // a pod is listed from the beginning of its admission, with the devices that it has so far
        let present = books.pods.values().filter(|book| book.present);
        let pod_resources = present.map(|book| describe(&books, book)).collect();
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        let books = self.0.books();
        // Unhealthy devices are included, as in the real one.
        let devices = books
            .devices()
            .iter()
            .flat_map(|(resource, states)| {
                states.iter().map(|(id, state)| ContainerDevices {
                    resource_name: resource.clone(),
                    device_ids: vec![id.clone()],
                    topology: state.topology.as_ref().map(|topology| merged(&[topology])),
                })
            })
            .collect();
        Ok(Response::new(AllocatableResourcesResponse { devices, ..AllocatableResourcesResponse::default() }))
    }

    async fn get(
        &self,
        request: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        let request = request.into_inner();
        let books = self.0.books();
        let found = books.pods.values().find(|book| {
            book.present
                && object::name(&book.pod) == request.pod_name
                && object::namespace(&book.pod) == request.pod_namespace
        });
        let book = found.ok_or_else(|| {
            Status::unknown(format!("pod {} in namespace {} not found", request.pod_name, request.pod_namespace))
        })?;
        Ok(Response::new(GetPodResourcesResponse { pod_resources: Some(describe(&books, book)) }))
    }
}

fn describe(books: &Books, book: &PodBook) -> PodResources {
    PodResources {
        name: object::name(&book.pod).to_owned(),
        namespace: object::namespace(&book.pod).to_owned(),
        // Init containers that have ended are not listed.
        containers: book
            .containers
            .iter()
            .filter(|container| !container.init)
            .map(|container| ContainerResources {
                name: container.name.clone(),
                devices: container
                    .resources
                    .iter()
                    .map(|(resource, ids)| ContainerDevices {
                        resource_name: resource.clone(),
                        device_ids: ids.iter().cloned().collect(),
                        topology: topology(books, resource, ids.iter()),
                    })
                    .collect(),
                ..ContainerResources::default()
            })
            .collect(),
    }
}

fn topology<'a>(books: &Books, resource: &str, ids: impl Iterator<Item = &'a String>) -> Option<TopologyInfo> {
    let states = books.devices().get(resource)?;
    let found: Vec<&DeviceTopology> = ids.filter_map(|id| states.get(id)?.topology.as_ref()).collect();
    (!found.is_empty()).then(|| merged(&found))
}

fn merged(parts: &[&DeviceTopology]) -> TopologyInfo {
    let mut ids: Vec<i64> = parts.iter().flat_map(|part| part.nodes.iter().map(|node| node.id)).collect();
    ids.sort_unstable();
    ids.dedup();
    TopologyInfo { nodes: ids.into_iter().map(|id| NumaNode { id }).collect() }
}
