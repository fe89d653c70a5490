//! What vendors' programs report about health, over their own protocols.

use std::path::Path;
use std::sync::{Arc, Mutex};

use kerf::device::Health;
use kerf_proto::amd::metrics_service_server::{MetricsService, MetricsServiceServer};
use kerf_proto::amd::{GpuState, GpuStateResponse, Nothing};
use kerf_proto::intel::levelzero_server::{Levelzero, LevelzeroServer};
use kerf_proto::intel::{DeviceHealth, DeviceId, DeviceIndices, DeviceTemperature, GetIntelIndicesMessage};
use kerf_proto::xpumd::device_info_server::{DeviceInfo, DeviceInfoServer};
use kerf_proto::xpumd::{
    DeviceHealthResponse, DeviceInformation, HealthStatus, PciInfo, SeverityLevel, WatchDeviceHealthRequest,
};
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

/// Programs that were named to tell health and do not answer, each a problem.
async fn silent(forest: &Forest, flags: &[&str]) -> Vec<String> {
    let backend = contract(forest, flags).backend;
    let told = tokio::task::spawn_blocking(move || {
        let backend = backend.open();
        backend.discover().unwrap();
        backend.remarks()
    });
    let silent = told.await.unwrap().into_iter().filter(|remark| remark.why.code() == "no-health-report");
    silent.inspect(|remark| assert!(remark.is_problem() && !remark.left_out)).map(|remark| remark.subject).collect()
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

/// Tells the severities that the test sets of the first GPU, and that another machine's is broken.
#[derive(Clone, Default)]
struct Xpumd(Arc<Mutex<Vec<SeverityLevel>>>);

#[tonic::async_trait]
impl DeviceInfo for Xpumd {
    type WatchDeviceHealthStream = tokio_stream::wrappers::ReceiverStream<Result<DeviceHealthResponse, Status>>;

    /// The stream stays open, as xpumd's does.
    async fn watch_device_health(
        &self,
        _: Request<WatchDeviceHealthRequest>,
    ) -> Result<Response<Self::WatchDeviceHealthStream>, Status> {
        let severities = self.0.lock().unwrap().clone();
        let device = |bdf: &str, severities: Vec<SeverityLevel>| {
            let pci = Some(PciInfo { bdf: bdf.to_owned() });
            let health = severities
                .into_iter()
                .map(|severity| HealthStatus { severity: severity.into(), ..HealthStatus::default() });
            let info = Some(DeviceInformation { pci, ..DeviceInformation::default() });
            kerf_proto::xpumd::DeviceHealth { info, health: health.collect() }
        };
        let unnamed = kerf_proto::xpumd::DeviceHealth { info: None, ..device("", vec![SeverityLevel::Failed]) };
        let devices =
            vec![device("0042:01:02.0", severities), device("0000:ff:00.0", vec![SeverityLevel::Failed]), unnamed];
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(Ok(DeviceHealthResponse { devices })).await.unwrap();
        tokio::spawn(async move { sender.closed().await });
        Ok(Response::new(receiver.into()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn xpumd_tells_health_where_it_is_named() {
    use SeverityLevel::{Critical, Failed, Ok, Unknown, Warning};
    let forest = Forest::named("e");
    let socket = forest.path().join("intelxpuinfo.sock");
    let flag = format!("-xpumd-endpoint={}", socket.display());
    let flags = ["-profile=intel", &flag];
    assert_eq!(ill(&forest, &flags).await, Vec::<String>::new(), "nobody answers");
    assert_eq!(silent(&forest, &flags).await, ["xpumd"]);
    let health = ["-profile=intel", "-health-management", "-levelzero-socket=/nonexistent/server.sock"];
    assert_eq!(silent(&forest, &health).await, ["Level-Zero sidecar"]);
    assert_eq!(silent(&forest, &["-profile=intel"]).await, Vec::<String>::new());
    // it is not asked for measurements
    let backend = contract(&forest, &flags).backend.open();
    let asked = tokio::task::spawn_blocking(move || {
        assert_eq!(backend.usage().unwrap().gpus.len(), 2);
        backend.remarks()
    });
    assert_eq!(asked.await.unwrap(), []);
    // AMD's is looked for where it usually is
    assert_eq!(silent(&Forest::named("a"), &["-profile=amd", "-pulse=1"]).await, Vec::<String>::new());
    let xpumd = Xpumd::default();
    serve(Server::builder().add_service(DeviceInfoServer::new(xpumd.clone())), &socket);
    for (severities, from) in [
        (vec![], "none"),
        (vec![Ok, Unknown], "none"),
        (vec![Ok, Warning], "warning"),
        (vec![Critical], "critical"),
        (vec![Failed, Ok], "failed"),
    ] {
        xpumd.0.lock().unwrap().clone_from(&severities);
        let levels = ["warning", "critical", "failed"];
        for (place, limit) in levels.into_iter().enumerate() {
            let is_ill = levels.iter().position(|level| *level == from).is_some_and(|found| found >= place);
            let limit = format!("-xpumd-severity={limit}");
            let told = ill(&forest, &["-profile=intel", &flag, &limit]).await;
            assert_eq!(told, if is_ill { vec!["0042:01:02.0"] } else { Vec::new() }, "{severities:?} {limit}");
        }
    }
    *xpumd.0.lock().unwrap() = vec![Warning];
    assert_eq!(ill(&forest, &flags).await, ["0042:01:02.0"], "the default");
    assert_eq!(silent(&forest, &flags).await, Vec::<String>::new());
    // GPUs of vcuda are asked about in the same way
    let backend = crate::offers::config(&forest, &["--node-name=n", "--backend=intel", &flag]).backend;
    let health = tokio::task::spawn_blocking(move || backend.open().health().unwrap()).await.unwrap();
    assert_eq!(health.values().filter(|health| **health == Health::Unhealthy).count(), 1);
}
