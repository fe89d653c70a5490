//! The connection to one plugin.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use kerf_proto::deviceplugin::device_plugin_client::DevicePluginClient;
use kerf_proto::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse, ContainerPreferredAllocationRequest,
    DevicePluginOptions, Empty, ListAndWatchResponse, PreStartContainerRequest, PreferredAllocationRequest,
};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint as Address, Uri};
use tonic::{Code, Status, Streaming};

/// How long kubelet tries to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a container start may wait for a plugin.
const PRE_START: Duration = Duration::from_secs(30);

/// A connected plugin.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    client: DevicePluginClient<Channel>,
    pub(crate) options: DevicePluginOptions,
}

impl Endpoint {
    /// Dials a plugin's socket and asks for its options, as kubelet does before it answers a registration.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, String> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The URI only sets the authority, which kubelet sends as `localhost`.
        let address = Address::from_static("http://localhost");
        let channel = tokio::time::timeout(CONNECT, address.connect_with_connector(connector))
            .await
            .map_err(|_| "context deadline exceeded".to_owned())?
            .map_err(|error| format!("failed to dial device plugin: {:#}", anyhow::Error::new(error)))?;
        let mut client = DevicePluginClient::new(channel);
        let options =
            client.get_device_plugin_options(Empty {}).await.map_err(|status| go_error(&status))?.into_inner();
        Ok(Self { client, options })
    }

    pub(crate) async fn list_and_watch(&self) -> Result<Streaming<ListAndWatchResponse>, Status> {
        let stream = self.client.clone().list_and_watch(Empty {}).await?;
        Ok(stream.into_inner())
    }

    /// The ids that the plugin prefers; empty if it has no preference.
    pub(crate) async fn preferred(
        &self,
        available: Vec<String>,
        must_include: Vec<String>,
        size: usize,
    ) -> Result<Vec<String>, String> {
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_i_ds: available,
                must_include_device_i_ds: must_include,
                allocation_size: i32::try_from(size).unwrap_or(i32::MAX),
            }],
        };
        let response =
            self.client.clone().get_preferred_allocation(request).await.map_err(|status| go_error(&status))?;
        let first = response.into_inner().container_responses.into_iter().next();
        Ok(first.map(|container| container.device_i_ds).unwrap_or_default())
    }

    pub(crate) async fn allocate(&self, ids: Vec<String>) -> Result<ContainerAllocateResponse, String> {
        let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids: ids }] };
        let response = self.client.clone().allocate(request).await.map_err(|status| go_error(&status))?;
        response
            .into_inner()
            .container_responses
            .into_iter()
            .next()
            .ok_or_else(|| "no containers in response from device plugin".to_owned())
    }

    pub(crate) async fn pre_start(&self, ids: Vec<String>) -> Result<(), String> {
        let mut request = tonic::Request::new(PreStartContainerRequest { devices_ids: ids });
        request.set_timeout(PRE_START);
        let mut client = self.client.clone();
        let call = client.pre_start_container(request);
        match tokio::time::timeout(PRE_START, call).await {
            Ok(answer) => answer.map(drop).map_err(|status| go_error(&status)),
            Err(_) => Err("rpc error: code = DeadlineExceeded desc = context deadline exceeded".to_owned()),
        }
    }
}

/// An error as Go's gRPC library prints it.
fn go_error(status: &Status) -> String {
    let code = match status.code() {
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}
