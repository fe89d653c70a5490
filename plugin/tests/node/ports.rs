//! What each listener serves.

use clap::Parser as _;
use kerf_plugin::config::{Args, Config};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::stage::Stage;

#[tokio::test]
async fn each_listener_serves_its_own_and_nothing_else() {
    let stage = Stage::ready().await;
    stage.until("/readyz", |status, _| status == 200).await;
    let listening = stage.plugin.as_ref().unwrap().0.listening();
    assert!(listening.debug.ip().is_loopback());
    for (path, own) in [
        ("/metrics", listening.metrics),
        ("/livez", listening.metrics),
        ("/healthz", listening.metrics),
        ("/readyz", listening.metrics),
        ("/version", listening.metrics),
        ("/debug/state", listening.debug),
    ] {
        for address in [listening.metrics, listening.debug] {
            let expected = if address == own { 200 } else { 404 };
            assert_eq!(stage.get_at(address, path).await.0, expected, "{path} on {address} of {listening:?}");
        }
    }
}

/// As where two plugins share the host's network and have the same flags.
#[tokio::test]
async fn a_plugin_whose_address_is_taken_names_its_flag() {
    let stage = Stage::new().await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap();
    for flag in ["--metrics-listen", "--debug-listen"] {
        let mut arguments = stage.arguments();
        arguments.retain(|argument| !argument.starts_with(flag));
        arguments.push(format!("{flag}={taken}"));
        let config = Config::try_from(Args::parse_from(arguments)).unwrap();
        let client = kerf_runtime::client::connect(config.kubeconfig.as_deref()).await.unwrap();
        let started = kerf_plugin::start(config, Some(client), CancellationToken::new()).await;
        let error = format!("{:#}", started.err().expect("it does not start"));
        assert!(error.starts_with(flag) && error.contains(&taken.to_string()), "{error}");
    }
}
