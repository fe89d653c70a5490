//! What vendors' programs report about health, over their own protocols.

use std::path::Path;
use std::sync::{Arc, Mutex};

use kerf::device::Health;
use kerf_proto::amd::metrics_service_server::{MetricsService, MetricsServiceServer};
use kerf_proto::amd::{GpuState, GpuStateResponse, Nothing};
use kerf_proto::intel::levelzero_server::{Levelzero, LevelzeroServer};
use kerf_proto::intel::{DeviceHealth, DeviceId, DeviceIndices, DeviceTemperature, GetIntelIndicesMessage};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};

use crate::forest::Forest;
use crate::offers::contract;

/// Reports of each GPU what the test sets.
#[derive(Clone, Default)]
struct Exporter(Arc<Mutex<Vec<(String, String)>>>);

#[tonic::async_trait]
impl MetricsService for Exporter {
    async fn list(&self, _: Request<Nothing>) -> Result<Response<GpuStateResponse>, Status> {
        let states = self.0.lock().unwrap().clone().into_iter();
        let states = states.map(|(device, health)| GpuState { device, health, ..GpuState::default() });
        Ok(Response::new(GpuStateResponse { gpu_state: states.collect() }))
    }
}

/// Health and temperature of the first GPU; it knows no other.
#[derive(Clone)]
struct Sidecar(Arc<Mutex<(DeviceHealth, DeviceTemperature)>>);

impl Sidecar {
    fn of(&self, id: &Request<DeviceId>) -> Result<(DeviceHealth, DeviceTemperature), Status> {
        let known = id.get_ref().bdf_address == "0042:01:02.0";
        known.then(|| self.0.lock().unwrap().clone()).ok_or_else(|| Status::not_found("no such card"))
    }
}

#[tonic::async_trait]
impl Levelzero for Sidecar {
    async fn get_device_health(&self, id: Request<DeviceId>) -> Result<Response<DeviceHealth>, Status> {
        Ok(Response::new(self.of(&id)?.0))
    }

    async fn get_device_temperature(&self, id: Request<DeviceId>) -> Result<Response<DeviceTemperature>, Status> {
        Ok(Response::new(self.of(&id)?.1))
    }

    async fn get_intel_indices(
        &self,
        _: Request<GetIntelIndicesMessage>,
    ) -> Result<Response<DeviceIndices>, Status> {
        Err(Status::unavailable("not asked here"))
    }
}

pub fn serve(router: Router, socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(router.serve_with_incoming(UnixListenerStream::new(listener)));
}

/// Ids of unhealthy GPUs.
async fn ill(forest: &Forest, flags: &[&str]) -> Vec<String> {
    let backend = contract(forest, flags).backend;
    let health = tokio::task::spawn_blocking(move || backend.open().health().unwrap()).await.unwrap();
    let ill = health.into_iter().filter(|(_, health)| *health == Health::Unhealthy);
    ill.map(|(id, _)| id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn amds_exporter_makes_ill_and_well() {
    let forest = Forest::named("c");
    let socket = forest.path().join("exporter.sock");
    let flag = format!("--amd-exporter-socket={}", socket.display());
    let flags = ["-profile=amd", "-pulse=10", &flag];
    assert_eq!(ill(&forest, &flags).await, Vec::<String>::new(), "nobody answers");
    let exporter = Exporter::default();
    serve(Server::builder().add_service(MetricsServiceServer::new(exporter.clone())), &socket);
    let says = |health: &str| {
        *exporter.0.lock().unwrap() = vec![
            ("0000:43:00.0".to_owned(), health.to_owned()),
            ("0000:ff:00.0".to_owned(), "unhealthy".to_owned()),
        ];
    };
    for harmless in ["healthy", "Unhealthy", "", "unknown"] {
        says(harmless);
        assert_eq!(ill(&forest, &flags).await, Vec::<String>::new(), "{harmless:?}");
    }
    says("unhealthy");
    assert_eq!(ill(&forest, &flags).await, ["0000:43:00.0"]);
    assert_eq!(ill(&forest, &["-profile=amd", &flag]).await, Vec::<String>::new(), "not asked without -pulse");
    says("healthy");
    assert_eq!(ill(&forest, &flags).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn intels_sidecar_tells_health_and_temperature() {
    let forest = Forest::named("e");
    let socket = forest.path().join("server.sock");
    let flag = format!("-levelzero-socket={}", socket.display());
    let flags = ["-profile=intel", "-health-management", "-memory-temp-limit=80", &flag];
    let well = DeviceHealth { memory_ok: true, bus_ok: true, soc_ok: true, error: None };
    let cool = DeviceTemperature { global: 35.0, gpu: 35.0, memory: 35.0, error: None };
    let sidecar = Sidecar(Arc::new(Mutex::new((well.clone(), cool.clone()))));
    serve(Server::builder().add_service(LevelzeroServer::new(sidecar.clone())), &socket);
    let broken = DeviceHealth { bus_ok: false, ..well.clone() };
    let lost = DeviceHealth { error: Some(kerf_proto::intel::Error::default()), ..DeviceHealth::default() };
    let hot = |global, memory| DeviceTemperature { global, memory, ..cool.clone() };
    for (health, heat, is_ill) in [
        (&well, cool.clone(), false),
        (&broken, cool.clone(), true),
        (&lost, cool.clone(), false),
        (&well, hot(100.0, 80.0), false),
        (&well, hot(35.0, 80.5), true),
        (&well, hot(101.0, 35.0), true),
    ] {
        *sidecar.0.lock().unwrap() = (health.clone(), heat.clone());
        assert_eq!(!ill(&forest, &flags).await.is_empty(), is_ill, "{health:?} {heat:?}");
    }
}
