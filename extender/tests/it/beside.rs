//! The probe of kube-scheduler's container, which the extender answers.

use std::net::SocketAddr;
use std::sync::Arc;

use kerf_extender::config::Config;
use kerf_testkit::api::ApiServer;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::certificates::{Authority, SERVER_CERTIFICATE};
use crate::fixture::{World, config, started};

/// A scheduler that says this once to each connection, under a certificate that nobody knows.
async fn scheduler(says: &'static str) -> SocketAddr {
    let signed = Authority::new("unknown").sign(&SERVER_CERTIFICATE);
    let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            assert!(head[..read].starts_with(b"GET /livez HTTP/1.1\r\n"));
            let answer = format!("HTTP/1.1 {says}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    address
}

async fn world(livez: Option<SocketAddr>) -> World {
    let scheduler_livez = livez.map(|address| format!("https://{address}/livez").parse().unwrap());
    started(ApiServer::start().await.unwrap(), Config { scheduler_livez, ..config() }).await
}

#[tokio::test]
async fn the_scheduler_beside_it_is_asked_whatever_its_certificate() {
    let world = world(Some(scheduler("200 OK").await)).await;
    assert_eq!(world.text("/livez/scheduler").await, "ok\n");
    // its connection is closed each time
    assert_eq!(world.text("/livez/scheduler").await, "ok\n");
}

#[tokio::test]
async fn it_is_told_what_is_wrong_with_it() {
    let world = world(Some(scheduler("500 Internal Server Error").await)).await;
    let text = world.text("/livez/scheduler").await;
    assert!(text.starts_with("kube-scheduler does not say that it is alive, for 0 s: "), "{text}");
}

#[tokio::test]
async fn without_a_scheduler_there_is_no_such_route() {
    let world = world(None).await;
    let answer = reqwest::get(world.url_of("/livez/scheduler")).await.unwrap();
    assert_eq!(answer.status().as_u16(), 404);
}

#[tokio::test]
async fn only_200_is_alive() {
    for says in ["302 Found", "204 No Content", "401 Unauthorized"] {
        let world = world(Some(scheduler(says).await)).await;
        let text = world.text("/livez/scheduler").await;
        assert!(text.contains(&format!("for 0 s: {says}")), "{text}");
    }
}

#[tokio::test]
async fn of_an_answer_without_end_the_beginning_is_read() {
    for says in ["200 OK", "500 Internal Server Error"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let livez = format!("http://{}/livez", listener.local_addr().unwrap());
        let writes = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = format!("HTTP/1.1 {says}\r\ncontent-type: text/plain\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut written = 0_usize;
            // until its client closes the connection; what the sockets hold is a few MiB
            while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {
                written += 64 << 10;
                assert!(written < 64 << 20, "all of it is read");
            }
        });
        let scheduler_livez = Some(livez.parse().unwrap());
        let world = started(ApiServer::start().await.unwrap(), Config { scheduler_livez, ..config() }).await;
        let text = world.text("/livez/scheduler").await;
        assert!(text == "ok\n" || text.contains("500 Internal Server Error: \"xxx"), "{text:.200}");
        assert!(text.len() < 4 << 10, "{}", text.len());
        writes.await.unwrap();
    }
}
