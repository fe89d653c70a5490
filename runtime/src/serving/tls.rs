//! TLS for clients with a certificate, from files that may be replaced while the process runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use parking_lot::RwLock;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// The files, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that sign clients' certificates.
    pub client_ca: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
struct Texts {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

/// What new connections are accepted with. Clones share it.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Files,
    current: Arc<RwLock<(Texts, Arc<ServerConfig>)>>,
}

impl Files {
    async fn read(&self) -> anyhow::Result<Texts> {
        let read = async |path: &PathBuf| tokio::fs::read(path).await.with_context(|| path.display().to_string());
        Ok(Texts {
            certificate: read(&self.certificate).await?,
            key: read(&self.key).await?,
            client_ca: read(&self.client_ca).await?,
        })
    }

    /// # Errors
    /// Names the file that cannot be used.
    fn parse(&self, texts: &Texts) -> anyhow::Result<ServerConfig> {
        let certificates = |text: &[u8], path: &PathBuf| -> anyhow::Result<Vec<CertificateDer<'static>>> {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
            let found = found.with_context(|| path.display().to_string())?;
            ensure!(!found.is_empty(), "{}: no certificate in it", path.display());
            Ok(found)
        };
        let chain = certificates(&texts.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&texts.key).with_context(|| self.key.display().to_string())?;
        let mut authorities = RootCertStore::empty();
        for authority in certificates(&texts.client_ca, &self.client_ca)? {
            authorities.add(authority).with_context(|| self.client_ca.display().to_string())?;
        }
        let provider = Arc::new(default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients.build()?)
            .with_single_cert(chain, key)
            .with_context(|| format!("{} with {}", self.certificate.display(), self.key.display()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where one cannot be used; the text names it.
    pub async fn load(files: Files) -> anyhow::Result<Self> {
        let texts = files.read().await?;
        let config = Arc::new(files.parse(&texts)?);
        Ok(Self { files, current: Arc::new(RwLock::new((texts, config))) })
    }

    /// Reads the files again and again. Where they have changed and can be used together, new connections are accepted
    /// with them; otherwise with the last that could.
    pub async fn follow(self, every: Duration, token: CancellationToken) {
        let mut told = None;
        while token.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            match self.again().await {
                Ok(changed) => {
                    told = None;
                    if changed {
                        tracing::info!(files = ?self.files, "certificates have changed");
                    }
                }
                // also while one of the files has been replaced and the others have not yet
                Err(error) => {
                    let error = format!("{error:#}");
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(error, "certificates cannot be read again; serving with the last ones");
                        told = Some(error);
                    }
                }
            }
        }
    }

    async fn again(&self) -> anyhow::Result<bool> {
        let texts = self.files.read().await?;
        if self.current.read().0 == texts {
            return Ok(false);
        }
        let config = Arc::new(self.files.parse(&texts)?);
        *self.current.write() = (texts, config);
        Ok(true)
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let config = self.current.read().1.clone();
        TlsAcceptor::from(config).accept(stream).await
    }
}
