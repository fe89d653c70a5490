//! A minimal device plugin whose behaviour a test controls.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use kerf_proto::deviceplugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use kerf_proto::deviceplugin::registration_client::RegistrationClient;
use kerf_proto::deviceplugin::*;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

type Prefer = Box<dyn Fn(Vec<String>, Vec<String>, usize) -> Result<Vec<String>, &'static str> + Send>;
type Answer = Box<dyn Fn(&mut ContainerAllocateResponse, &[String]) + Send>;

struct State {
    devices: watch::Sender<Vec<Device>>,
    log: Arc<Mutex<Vec<String>>>,
    prefer: Mutex<Option<Prefer>>,
    answer: Mutex<Option<Answer>>,
    refuse: Mutex<bool>,
    failing_starts: AtomicUsize,
    ended: watch::Sender<bool>,
    gate: watch::Sender<Gate>,
    stop: CancellationToken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Shut,
    Held,
}

/// Holds calls of Allocate without an answer.
pub struct Held(Arc<State>);

impl Held {
    pub async fn wait_held(&self) {
        self.0.gate.subscribe().wait_for(|gate| *gate == Gate::Held).await.expect("alive");
    }

    pub fn open(&self) {
        self.0.gate.send_replace(Gate::Open);
    }
}

pub struct Plugin {
    resource: String,
    socket: PathBuf,
    pub log: Arc<Mutex<Vec<String>>>,
    state: Arc<State>,
    server: tokio::task::JoinHandle<()>,
}

pub async fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connect).await.expect("connect")
}

pub async fn register(socket: &Path, request: RegisterRequest) -> Result<(), Status> {
    RegistrationClient::new(channel(socket).await).register(request).await.map(drop)
}

impl Plugin {
    /// Serves `<last part of the resource>-0` and so on.
    pub async fn start(dir: &Path, resource: &str, count: usize) -> Self {
        static SOCKETS: AtomicUsize = AtomicUsize::new(0);
        let short = resource.rsplit('/').next().expect("name");
        let socket = dir.join(format!("{short}-{}.sock", SOCKETS.fetch_add(1, Ordering::SeqCst)));
        let device = |index| Device { id: format!("{short}-{index}"), health: HEALTHY.into(), topology: None };
        let log = Arc::new(Mutex::new(Vec::new()));
        let state = Arc::new(State {
            devices: watch::Sender::new((0..count).map(device).collect()),
            log: log.clone(),
            prefer: Mutex::default(),
            answer: Mutex::default(),
            refuse: Mutex::default(),
            failing_starts: AtomicUsize::new(0),
            ended: watch::Sender::new(false),
            gate: watch::Sender::new(Gate::Open),
            stop: CancellationToken::new(),
        });
        let listener = UnixListener::bind(&socket).expect("bind");
        let service = DevicePluginServer::from_arc(Arc::new(Service(state.clone())));
        let stop = state.stop.clone();
        let server = tokio::spawn(async move {
            Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
                .await
                .expect("serve");
        });
        Self { resource: resource.to_owned(), socket, log, state, server }
    }

    pub async fn register(&self, kubelet: &Path) -> Result<(), Status> {
        let request = RegisterRequest {
            version: VERSION.into(),
            endpoint: self.socket.file_name().expect("name").to_string_lossy().into_owned(),
            resource_name: self.resource.clone(),
            options: None,
        };
        register(kubelet, request).await
    }

    pub fn set_health(&self, id: &str, healthy: bool) {
        self.state.devices.send_modify(|devices| {
            for device in devices.iter_mut().filter(|device| device.id == id) {
                device.health = if healthy { HEALTHY } else { UNHEALTHY }.into();
            }
        });
    }

    pub fn prefer(
        &self,
        rule: impl Fn(Vec<String>, Vec<String>, usize) -> Result<Vec<String>, &'static str> + Send + 'static,
    ) {
        *self.state.prefer.lock().expect("lock") = Some(Box::new(rule));
    }

    pub fn answer(&self, rule: impl Fn(&mut ContainerAllocateResponse, &[String]) + Send + 'static) {
        *self.state.answer.lock().expect("lock") = Some(Box::new(rule));
    }

    pub fn refuse(&self, refuse: bool) {
        *self.state.refuse.lock().expect("lock") = refuse;
    }

    pub fn fail_starts(&self, count: usize) {
        self.state.failing_starts.store(count, Ordering::SeqCst);
    }

    pub fn hold_allocates(&self) -> Held {
        self.state.gate.send_replace(Gate::Shut);
        Held(self.state.clone())
    }

    /// Waits until kubelet has closed the device stream.
    pub async fn wait_stream_end(&self) {
        self.state.ended.subscribe().wait_for(|ended| *ended).await.expect("alive");
    }

    pub async fn stop(self) {
        self.state.stop.cancel();
        self.server.await.expect("server");
    }
}

struct Service(Arc<State>);

impl Service {
    fn log(&self, what: impl Into<String>) {
        self.0.log.lock().expect("lock").push(what.into());
    }
}

struct End(Arc<State>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.send_replace(true);
    }
}

#[tonic::async_trait]
impl DevicePlugin for Service {
    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Result<Response<DevicePluginOptions>, Status> {
        self.log("options");
        Ok(Response::new(DevicePluginOptions {
            pre_start_required: true,
            get_preferred_allocation_available: true,
        }))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        self.log("list");
        let end = End(self.0.clone());
        let lists = WatchStream::new(self.0.devices.subscribe()).map(move |devices| {
            let _held = &end;
            Ok(ListAndWatchResponse { devices })
        });
        Ok(Response::new(lists.take_until(self.0.stop.clone().cancelled_owned()).boxed()))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let mut request = request.into_inner();
        let request = request.container_requests.remove(0);
        self.log("preferred");
        let size = usize::try_from(request.allocation_size).expect("size");
        let rule = self.0.prefer.lock().expect("lock");
        let ids = rule
            .as_ref()
            .map_or(Ok(Vec::new()), |rule| {
                rule(request.available_device_i_ds, request.must_include_device_i_ds, size)
            })
            .map_err(Status::internal)?;
        Ok(Response::new(PreferredAllocationResponse {
            container_responses: vec![ContainerPreferredAllocationResponse { device_i_ds: ids }],
        }))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Result<Response<AllocateResponse>, Status> {
        let ids = request.into_inner().container_requests.remove(0).devices_ids;
        self.log(format!("allocate {}", ids.join(",")));
        if *self.0.gate.borrow() == Gate::Shut {
            self.0.gate.send_replace(Gate::Held);
            let mut gate = self.0.gate.subscribe();
            let _open = gate.wait_for(|gate| *gate == Gate::Open).await;
        }
        if *self.0.refuse.lock().expect("lock") {
            return Err(Status::failed_precondition("refused"));
        }
        let mut response = ContainerAllocateResponse::default();
        if let Some(rule) = &*self.0.answer.lock().expect("lock") {
            rule(&mut response, &ids);
        }
        Ok(Response::new(AllocateResponse { container_responses: vec![response] }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        self.log(format!("pre_start {}", request.into_inner().devices_ids.join(",")));
        let failing = &self.0.failing_starts;
        if failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(Status::internal("not yet"));
        }
        Ok(Response::new(PreStartContainerResponse {}))
    }
}
