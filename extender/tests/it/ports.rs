//! What each listener serves, and TLS for the scheduler.

use std::path::Path;
use std::sync::Arc;

use kerf_extender::config::{Config, Ports};
use kerf_runtime::serving::tls::Files;
use kerf_testkit::api::ApiServer;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::fixture::{PATIENCE, World, config, node, started};

#[tokio::test]
async fn each_listener_serves_its_own_and_nothing_else() {
    let world = World::new([node("a", 1, 15_360)]).await;
    let listening = world.extender.listening();
    let all = [listening.scheduler, listening.metrics, listening.debug];
    let client = reqwest::Client::new();
    let status = async |address, path: &str| {
        let url = format!("http://{address}{path}");
        let answer = if path.starts_with("/scheduler") {
            client.post(url).body("{}").send()
        } else {
            client.get(url).send()
        };
        answer.await.unwrap().status().as_u16()
    };
    for (path, own) in [
        ("/scheduler/filter", listening.scheduler),
        ("/scheduler/bind", listening.scheduler),
        ("/metrics", listening.metrics),
        ("/livez", listening.metrics),
        ("/healthz", listening.metrics),
        ("/readyz", listening.metrics),
        ("/version", listening.metrics),
        ("/debug/state", listening.debug),
    ] {
        for address in all {
            let expected = if address == own { 200 } else { 404 };
            assert_eq!(status(address, path).await, expected, "{path} on {address} of {listening:?}");
        }
    }
}

/// The certificates of one of the authorities in `certificates`, where a server finds its files.
fn lay(folder: &Path, authority: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/certificates");
    for (name, file) in [("crt", "-server.crt"), ("key", "-server.key"), ("ca", ".crt")] {
        // as a whole, as kubelet replaces a Secret's files
        let staged = folder.join("staged");
        std::fs::copy(from.join(format!("{authority}{file}")), &staged).unwrap();
        std::fs::rename(staged, folder.join(name)).unwrap();
    }
}

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/certificates").join(name)).unwrap()
}

/// The status of a call over TLS to a server of the authority `server`, with a certificate of `client`.
async fn call(address: std::net::SocketAddr, server: &str, client: Option<&str>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem(&format!("{server}.crt"))).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match client {
        Some(client) => {
            let chain = vec![CertificateDer::from_pem_slice(&pem(&format!("{client}-client.crt"))).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(&pem(&format!("{client}-client.key"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let body = json!({ "Pod": {}, "NodeNames": ["a"] }).to_string();
    let head = format!(
        "POST /scheduler/filter HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn with_tls_only_who_has_a_certificate_of_the_authority_is_served_also_after_a_change_of_files() {
    let folder = tempfile::tempdir().unwrap();
    lay(folder.path(), "first");
    let [certificate, key, client_ca] = ["crt", "key", "ca"].map(|name| folder.path().join(name));
    let tls = Some(Files { certificate, key, client_ca });
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 1, 15_360)).unwrap();
    let world = started(api, Config { ports: Ports { tls, ..config().ports }, ..config() }).await;
    tokio::time::timeout(PATIENCE, world.extender.ready()).await.unwrap();
    let address = world.extender.address();

    assert_eq!(call(address, "first", Some("first")).await.unwrap(), "HTTP/1.1 200 OK");
    for stranger in [None, Some("second")] {
        assert!(call(address, "first", stranger).await.is_err(), "{stranger:?}");
    }
    let plain = reqwest::Client::new().post(format!("http://{address}/scheduler/filter")).body("{}").send().await;
    assert!(plain.is_err(), "no plain HTTP");

    // half of a change is no change
    std::fs::write(folder.path().join("key"), pem("second-server.key")).unwrap();
    lay(folder.path(), "second");
    let changed = async {
        while call(address, "second", Some("second")).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, changed).await.expect("read again");
    assert!(call(address, "second", Some("first")).await.is_err(), "its authority is gone");
    // files that cannot be used leave what was
    std::fs::write(folder.path().join("crt"), "not a certificate").unwrap();
    assert_eq!(call(address, "second", Some("second")).await.unwrap(), "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for (spoiled, content) in [("crt", "x"), ("key", "x"), ("ca", "x"), ("key", "another"), ("crt", "")] {
        lay(folder.path(), "first");
        let path = folder.path().join(spoiled);
        match content {
            "another" => std::fs::write(&path, pem("second-server.key")).unwrap(),
            "" => std::fs::remove_file(&path).unwrap(),
            text => std::fs::write(&path, text).unwrap(),
        }
        let [certificate, key, client_ca] = ["crt", "key", "ca"].map(|name| folder.path().join(name));
        let tls = Some(Files { certificate, key, client_ca });
        let config = Config { ports: Ports { tls, ..config().ports }, ..config() };
        let api = ApiServer::start().await.unwrap();
        let client = crate::fixture::client_of(&api).await;
        let tasks = kerf_runtime::shutdown::Tasks::default();
        let error = kerf_extender::start(&config, client, tasks).await.err().expect("it does not start");
        let text = format!("{error:#}");
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
}
