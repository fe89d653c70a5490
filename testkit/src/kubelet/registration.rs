//! The Registration service, and the stream of device lists that follows a registration.

use std::sync::Arc;

use kerf_proto::deviceplugin::registration_server::Registration;
use kerf_proto::deviceplugin::{Empty, RegisterRequest, VERSION};
use tonic::{Request, Response, Status};

use super::call::Call;
use super::endpoint::Endpoint;
use super::life::Life;
use super::shared::Shared;
use crate::scheduler::request;

/// Serves `kubelet.sock` for registrations.
#[derive(Clone, Debug)]
pub(crate) struct Registrar {
    pub(crate) shared: Arc<Shared>,
    pub(crate) life: Life,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let resource = request.resource_name;
        if request.version != VERSION {
            return Err(Status::unknown(format!(
                "requested API version \"{}\" is not supported by kubelet. Supported version is \"{VERSION}\"",
                request.version
            )));
        }
        if !request::is_extended(&resource) {
            return Err(Status::unknown(format!("the ResourceName \"{resource}\" is invalid")));
        }
        let socket = self.shared.config.device_plugins_dir.join(&request.endpoint);
        // Connected before the answer: a plugin that does not serve yet is refused.
        let endpoint = Endpoint::connect(&socket).await.map_err(Status::unknown)?;
        let generation = self.shared.books().register(&resource, endpoint.clone());
        self.shared.note(Call::Registered { resource: resource.clone(), endpoint: request.endpoint });
        let shared = self.shared.clone();
        self.life.spawn(follow(shared, resource, generation, endpoint));
        Ok(Response::new(Empty {}))
    }
}

async fn follow(shared: Arc<Shared>, resource: String, generation: u64, endpoint: Endpoint) {
    if let Ok(mut stream) = endpoint.list_and_watch().await {
        while let Ok(Some(message)) = stream.message().await {
            if shared.books().list(&resource, generation, message.devices) {
                shared.touch();
            }
        }
    }
    let stale = shared.config.stale_disconnect;
    if shared.books().disconnect(&resource, generation, stale) {
        shared.note(Call::Disconnected { resource });
    }
}
