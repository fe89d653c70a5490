//! Where the extender listens, and for whom.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::builder::BoolishValueParser;
use kerf_runtime::admin;
use kerf_runtime::serving::tls::Files;

/// Flags of the listeners.
#[derive(Clone, Debug, clap::Args)]
pub struct PortArgs {
    /// Address to serve the scheduler on. On another than loopback with TLS and client certificates, or with
    /// --insecure-plain-http
    #[arg(long, env = "KERF_LISTEN", default_value = "127.0.0.1:3456", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Address of /metrics, /livez, /healthz, /readyz and /version
    #[arg(long, env = "KERF_METRICS_LISTEN", default_value = "0.0.0.0:3457", value_name = "ADDRESS")]
    pub metrics_listen: SocketAddr,
    /// Address of /debug/state, which names all pods with GPUs: one of loopback (kubectl port-forward reaches it)
    #[arg(
        long,
        env = "KERF_DEBUG_LISTEN",
        value_parser = admin::loopback,
        default_value = "127.0.0.1:3458",
        value_name = "ADDRESS"
    )]
    pub debug_listen: SocketAddr,
    /// Serve the scheduler over TLS with this certificate (PEM, with those between it and its authority), read again when
    /// it changes
    #[arg(long, env = "KERF_TLS_CERT_FILE", value_name = "PATH")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of --tls-cert-file
    #[arg(long, env = "KERF_TLS_PRIVATE_KEY_FILE", value_name = "PATH")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Authority (PEM) that signs the scheduler's client certificate (certFile of its tlsConfig). Whoever has a
    /// certificate of it may have pods bound, so one of the scheduler alone, and not the cluster's
    #[arg(long, env = "KERF_CLIENT_CA_FILE", value_name = "PATH")]
    pub client_ca_file: Option<PathBuf>,
    /// Serve the scheduler over plain HTTP on an address that other machines reach: whoever reaches it can have pods bound
    #[arg(long, env = "KERF_INSECURE_PLAIN_HTTP", value_parser = BoolishValueParser::new())]
    pub insecure_plain_http: bool,
}

/// The addresses to listen on; port 0 picks a free one.
#[derive(Clone, Debug)]
pub struct Ports {
    /// For the scheduler.
    pub listen: SocketAddr,
    /// For the scheduler's certificate; `None`: plain HTTP.
    pub tls: Option<Files>,
    /// Metrics and health.
    pub metrics: SocketAddr,
    /// The whole state.
    pub debug: SocketAddr,
}

impl TryFrom<&PortArgs> for Ports {
    type Error = anyhow::Error;

    fn try_from(args: &PortArgs) -> anyhow::Result<Self> {
        let tls = files(args)?;
        let (listen, plain) = (args.listen, args.insecure_plain_http);
        ensure!(
            !(plain && tls.is_some()),
            "--insecure-plain-http does not go with --tls-cert-file: it is one or the other"
        );
        ensure!(
            tls.is_some() || plain || listen.ip().is_loopback(),
            "--listen {listen} is reached by other machines, and whoever reaches it can have pods bound. Give \
             --tls-cert-file, --tls-private-key-file and --client-ca-file, with enableHTTPS and tlsConfig in \
             kube-scheduler's configuration; or listen on 127.0.0.1, beside kube-scheduler; or say \
             --insecure-plain-http"
        );
        Ok(Self { listen, tls, metrics: args.metrics_listen, debug: args.debug_listen })
    }
}

fn files(args: &PortArgs) -> anyhow::Result<Option<Files>> {
    let given = [
        ("--tls-cert-file", &args.tls_cert_file),
        ("--tls-private-key-file", &args.tls_private_key_file),
        ("--client-ca-file", &args.client_ca_file),
    ];
    match given.map(|(_, path)| path.clone()) {
        [None, None, None] => Ok(None),
        [Some(certificate), Some(key), Some(client_ca)] => Ok(Some(Files { certificate, key, client_ca })),
        _ => {
            let missing: Vec<&str> =
                given.iter().filter(|(_, path)| path.is_none()).map(|(flag, _)| *flag).collect();
            bail!(
                "TLS needs a certificate, its key and the clients' authority: {} is missing",
                missing.join(" and ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        ports: PortArgs,
    }

    fn ports(flags: &[&str]) -> Result<Ports, String> {
        let args = Only::try_parse_from(["program"].iter().chain(flags)).map_err(|error| error.to_string())?;
        Ports::try_from(&args.ports).map_err(|error| error.to_string())
    }

    const TLS: [&str; 3] = ["--tls-cert-file=c", "--tls-private-key-file=k", "--client-ca-file=a"];

    #[test]
    fn without_flags_the_scheduler_and_the_state_are_served_on_loopback_alone() {
        let ports = ports(&[]).unwrap();
        assert!(ports.listen.ip().is_loopback() && ports.debug.ip().is_loopback() && ports.tls.is_none());
        assert!(ports.metrics.ip().is_unspecified());
    }

    #[test]
    fn other_addresses_need_tls_or_a_flag_that_says_plain_http() {
        for address in ["0.0.0.0:3456", "10.0.0.1:3456", "[::]:3456"] {
            let listen = format!("--listen={address}");
            let error = ports(&[&listen]).unwrap_err();
            for part in [address, "--tls-cert-file", "--client-ca-file", "127.0.0.1", "--insecure-plain-http"] {
                assert!(error.contains(part), "{part} in {error}");
            }
            assert!(ports(&[&listen, "--insecure-plain-http"]).unwrap().tls.is_none());
            assert!(ports(&[&listen, TLS[0], TLS[1], TLS[2]]).unwrap().tls.is_some());
        }
        for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1"] {
            assert!(ports(&[&format!("--listen={address}")]).is_ok(), "{address}");
        }
    }

    #[test]
    fn half_of_tls_names_what_is_missing() {
        for (missing, flag) in TLS.iter().enumerate() {
            let given: Vec<&str> =
                TLS.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, f)| *f).collect();
            let error = ports(&given).unwrap_err();
            let name = flag.split('=').next().unwrap();
            assert!(error.ends_with(&format!("{name} is missing")), "{error}");
        }
        assert!(ports(&[TLS[0], TLS[1], TLS[2], "--insecure-plain-http"]).is_err());
    }

    #[test]
    fn the_state_is_never_served_to_other_machines() {
        let error = ports(&["--debug-listen=0.0.0.0:3458"]).unwrap_err();
        assert!(error.contains("--debug-listen") && error.contains("loopback"), "{error}");
    }
}
