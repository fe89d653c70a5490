//! Intel GPUs of a Windows host: known from a sidecar, behind one device file.

use std::sync::{Arc, Mutex};

use clap::Parser;
use kerf_plugin::config::{Args, Config};
use kerf_plugin::testing::contract::Contract;
use kerf_plugin::two_dashes;
use kerf_proto::intel::levelzero_server::{Levelzero, LevelzeroServer};
use kerf_proto::intel::{DeviceHealth, DeviceId, DeviceIndices, DeviceTemperature, Error, GetIntelIndicesMessage};
use serde_json::json;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::forest::Forest;
use crate::health::serve;
use crate::offers::{answer, config, contract, made};

/// Knows GPUs by index and nothing of their health.
#[derive(Clone, Default)]
struct Sidecar(Arc<Mutex<DeviceIndices>>);

#[tonic::async_trait]
impl Levelzero for Sidecar {
    async fn get_device_health(&self, _: Request<DeviceId>) -> Result<Response<DeviceHealth>, Status> {
        Err(Status::not_found("no such card"))
    }

    async fn get_device_temperature(&self, _: Request<DeviceId>) -> Result<Response<DeviceTemperature>, Status> {
        Err(Status::not_found("no such card"))
    }

    async fn get_intel_indices(
        &self,
        _: Request<GetIntelIndicesMessage>,
    ) -> Result<Response<DeviceIndices>, Status> {
        Ok(Response::new(self.0.lock().unwrap().clone()))
    }
}

/// Ids of `gpu.intel.com/dxg`; the sidecar is asked, so off the async threads.
async fn ids(contract: &Contract) -> Vec<String> {
    let contract = contract.clone();
    let offers = tokio::task::spawn_blocking(move || made(&contract)).await.unwrap();
    offers.resources.get("gpu.intel.com/dxg").into_iter().flat_map(|offered| offered.pool.ids()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_are_those_that_the_sidecar_tells_of() {
    let forest = Forest::described(json!({ "cards": [] }));
    let socket = forest.path().join("server.sock");
    let flag = format!("-levelzero-socket={}", socket.display());
    let contract = contract(&forest, &["-profile=intel", "-wsl", "-shared-dev-num=2", &flag]);
    let backend = contract.backend.open();
    let look = || {
        let backend = Arc::clone(&backend);
        async move { tokio::task::spawn_blocking(move || backend.discover()).await.unwrap().map(|found| found.len()) }
    };
    assert!(look().await.unwrap_err().to_string().contains("/dev/dxg"));
    std::fs::create_dir_all(forest.path().join("dev")).unwrap();
    std::fs::write(forest.path().join("dev/dxg"), "").unwrap();
    let silent = look().await.unwrap_err().to_string();
    assert!(silent.contains("Level-Zero sidecar") && silent.contains("server.sock"), "{silent}");
    let sidecar = Sidecar::default();
    serve(Server::builder().add_service(LevelzeroServer::new(sidecar.clone())), &socket);
    assert!(ids(&contract).await.is_empty(), "it knows none");
    let tells =
        |indices: &[u32]| *sidecar.0.lock().unwrap() = DeviceIndices { indices: indices.to_vec(), error: None };
    tells(&[0]);
    assert_eq!(ids(&contract).await, ["card0-0", "card0-1"]);
    tells(&[3, 1, 2, 0, 1]);
    assert_eq!(ids(&contract).await.len(), 8, "four cards, each once");
    assert_eq!(look().await.unwrap(), 4);
    // its last answer counts while it does not answer
    let error = Some(Error { description: "no driver".to_owned(), errorcode: 1 });
    *sidecar.0.lock().unwrap() = DeviceIndices { indices: Vec::new(), error };
    assert_eq!(look().await.unwrap(), 4);
    tells(&[2]);
    assert_eq!(look().await.unwrap(), 1);
    std::fs::remove_file(forest.path().join("dev/dxg")).unwrap();
    assert!(look().await.is_err(), "no device file, no card");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_told_which_of_the_cards_are_its_own() {
    let forest = Forest::described(json!({ "cards": [] }));
    std::fs::create_dir_all(forest.path().join("dev")).unwrap();
    std::fs::write(forest.path().join("dev/dxg"), "").unwrap();
    let socket = forest.path().join("server.sock");
    let sidecar = Sidecar(Arc::new(Mutex::new(DeviceIndices { indices: vec![0, 1, 10], error: None })));
    serve(Server::builder().add_service(LevelzeroServer::new(sidecar)), &socket);
    let flag = format!("-levelzero-socket={}", socket.display());
    let contract = contract(&forest, &["-profile=intel", "-wsl=true", &flag]);
    let asked = contract.clone();
    let offers = tokio::task::spawn_blocking(move || made(&asked)).await.unwrap();
    let ids = ["card10-0".to_owned(), "card1-0".to_owned()];
    let given = answer(&offers.resources["gpu.intel.com/dxg"], &ids).unwrap();
    let devices: Vec<_> = given.devices.iter().map(|spec| (&*spec.host_path, &*spec.permissions)).collect();
    assert_eq!(devices, [("/dev/dxg", "rw")]);
    let mounts: Vec<_> =
        given.mounts.iter().map(|mount| (&*mount.host_path, &*mount.container_path, mount.read_only)).collect();
    assert_eq!(mounts, [("/usr/lib/wsl", "/usr/lib/wsl", true)]);
    assert_eq!(given.envs, [("ZE_AFFINITY_MASK".to_owned(), "1,10".to_owned())].into());
    assert!(given.cdi_devices.is_empty());
}

#[test]
fn flags_that_need_to_see_the_single_cards_are_refused() {
    for other in ["-enable-monitoring", "-health-management", "-xpumd-endpoint=/run/xpumd.sock"] {
        let words = ["kerf-plugin", "-profile=intel", "-wsl", other].map(Into::into);
        let refused = Config::try_from(Args::try_parse_from(two_dashes(words)).unwrap()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "--wsl cannot be used with --enable-monitoring, --health-management or --xpumd-endpoint"
        );
    }
}

#[test]
fn the_record_of_a_placed_pod_may_name_them() {
    let forest = Forest::described(json!({ "cards": [] }));
    let config = config(&forest, &["-node-name=n", "-profile=intel", "-wsl", "-placed"]);
    assert!(config.keys.share_resources.contains("gpu.intel.com/dxg"));
    assert!(!config.keys.share_resources.contains("gpu.intel.com/i915"));
}
