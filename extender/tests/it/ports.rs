//! What each listener serves, and TLS for the scheduler.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use kerf_extender::config::{Config, Ports};
use kerf_testkit::api::ApiServer;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::{Authority, CLIENT, Purpose, SERVER, SERVER_CERTIFICATE, Signed, files, lay};
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

/// A connection that trusts the authority `server`, with the certificate `client`.
async fn connect(
    address: SocketAddr,
    server: &Authority,
    client: Option<&Signed>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(server.pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match client {
        Some(client) => {
            let chain = vec![CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(SERVER).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The status of a call over such a connection.
async fn call(address: SocketAddr, server: &Authority, client: Option<&Signed>) -> std::io::Result<String> {
    let mut stream = connect(address, server, client).await?;
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

/// An extender that serves the scheduler with the files in `folder`.
async fn with_tls(folder: &Path) -> World {
    let api = ApiServer::start().await.unwrap();
    api.create("nodes", node("a", 1, 15_360)).unwrap();
    let ports = Ports { tls: Some(files(folder)), ..config().ports };
    let world = started(api, Config { ports, ..config() }).await;
    tokio::time::timeout(PATIENCE, world.extender.ready()).await.unwrap();
    world
}

const SERVED: &str = "HTTP/1.1 200 OK";

#[tokio::test]
async fn with_tls_only_who_has_a_valid_certificate_of_the_authority_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (Authority::new("scheduler"), Authority::new("scheduler"));
    lay(folder.path(), &own);
    let world = with_tls(folder.path()).await;
    let address = world.extender.address();

    assert_eq!(call(address, &own, Some(&own.sign(&CLIENT))).await.unwrap(), SERVED);
    for (what, certificate) in [
        ("no certificate", None),
        ("one of another authority with the same name", Some(other.sign(&CLIENT))),
        ("one that has expired", Some(own.sign(&Purpose { years: [2000, 2001], ..CLIENT }))),
        ("one that is not valid yet", Some(own.sign(&Purpose { years: [4000, 4001], ..CLIENT }))),
        ("one for servers", Some(own.sign(&SERVER_CERTIFICATE))),
    ] {
        assert!(call(address, &own, certificate.as_ref()).await.is_err(), "{what}");
    }
    let untrusting = call(address, &other, Some(&own.sign(&CLIENT))).await;
    assert!(untrusting.is_err(), "a client that trusts another authority sends nothing");
    let plain = reqwest::Client::new().post(format!("http://{address}/scheduler/filter")).body("{}").send().await;
    assert!(plain.is_err(), "no plain HTTP");
}

#[tokio::test]
async fn certificates_that_are_replaced_are_used_once_they_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(Authority::new);
    let [of_first, of_second] = [&first, &second].map(|authority| authority.sign(&CLIENT));
    lay(folder.path(), &first);
    let world = with_tls(folder.path()).await;
    let address = world.extender.address();
    assert_eq!(call(address, &first, Some(&of_first)).await.unwrap(), SERVED);
    assert!(call(address, &first, Some(&of_second)).await.is_err(), "not its authority yet");

    // half of a change is no change
    std::fs::write(folder.path().join("key"), second.sign(&SERVER_CERTIFICATE).key).unwrap();
    lay(folder.path(), &second);
    let changed = async {
        while call(address, &second, Some(&of_second)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, changed).await.expect("read again");
    assert!(call(address, &second, Some(&of_first)).await.is_err(), "its authority is gone");
    // files that cannot be used leave what was
    std::fs::write(folder.path().join("crt"), "not a certificate").unwrap();
    assert_eq!(call(address, &second, Some(&of_second)).await.unwrap(), SERVED);
}

/// Whoever was let in by an authority is no more once that is replaced.
#[tokio::test]
async fn open_connections_end_when_their_authority_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(Authority::new);
    lay(folder.path(), &first);
    let world = with_tls(folder.path()).await;
    let mut open = connect(world.extender.address(), &first, Some(&first.sign(&CLIENT))).await.unwrap();
    open.write_all(b"GET /scheduler/filter HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 4096];
    let read = tokio::time::timeout(PATIENCE, open.read(&mut answer)).await.unwrap().unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 405"), "it is let in");
    lay(folder.path(), &second);
    // with or without a goodbye of TLS
    let ended = async { while open.read(&mut answer).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("scheduler");
    for (spoiled, content) in [("crt", "x"), ("key", "x"), ("ca", "x"), ("key", "another"), ("crt", "")] {
        lay(folder.path(), &authority);
        let path = folder.path().join(spoiled);
        match content {
            "another" => std::fs::write(&path, authority.sign(&SERVER_CERTIFICATE).key).unwrap(),
            "" => std::fs::remove_file(&path).unwrap(),
            text => std::fs::write(&path, text).unwrap(),
        }
        let config = Config { ports: Ports { tls: Some(files(folder.path())), ..config().ports }, ..config() };
        let api = ApiServer::start().await.unwrap();
        let client = crate::fixture::client_of(&api).await;
        let tasks = kerf_runtime::shutdown::Tasks::default();
        let error = kerf_extender::start(&config, client, tasks).await.err().expect("it does not start");
        let text = format!("{error:#}");
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
}
