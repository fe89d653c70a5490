//! The files of a TLS server: read within bounds, and checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, ensure};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt as _;
use x509_parser::parse_x509_certificate;

/// In bytes; more than a list of every public authority has.
const LARGEST: u64 = 1 << 20;

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
pub(super) struct Texts {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
    pub client_ca: Vec<u8>,
}

/// What the files give.
#[derive(Debug)]
pub(super) struct Usable {
    pub config: Arc<ServerConfig>,
    /// From when to when the server's certificate is valid.
    valid: [SystemTime; 2],
}

impl Usable {
    /// Why clients do not accept the certificate at that time.
    pub fn invalid(&self, now: SystemTime) -> Option<&'static str> {
        let [from, until] = self.valid;
        if now < from {
            Some("the certificate is not valid yet")
        } else {
            (now > until).then_some("the certificate has expired")
        }
    }
}

impl Files {
    pub(super) async fn read(&self) -> anyhow::Result<Texts> {
        let read = async |path: &PathBuf| read(path).await.with_context(|| path.display().to_string());
        Ok(Texts {
            certificate: read(&self.certificate).await?,
            key: read(&self.key).await?,
            client_ca: read(&self.client_ca).await?,
        })
    }

    /// # Errors
    /// Names the file that cannot be used.
    pub(super) fn parse(&self, texts: &Texts) -> anyhow::Result<Usable> {
        let certificates = |text: &[u8], path: &PathBuf| -> anyhow::Result<Vec<CertificateDer<'static>>> {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
            let found = found.map_err(words).with_context(|| path.display().to_string())?;
            ensure!(!found.is_empty(), "{}: no certificate in it", path.display());
            Ok(found)
        };
        let chain = certificates(&texts.certificate, &self.certificate)?;
        let valid = chain.first().and_then(|own| validity(own));
        let valid =
            valid.with_context(|| format!("{}: the certificate cannot be read", self.certificate.display()))?;
        let key = PrivateKeyDer::from_pem_slice(&texts.key);
        let key = key.map_err(words).with_context(|| self.key.display().to_string())?;
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
        Ok(Usable { config: Arc::new(config), valid })
    }
}

/// A regular file's content. Opening and reading anything else may never end.
async fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    ensure!(tokio::fs::metadata(path).await?.is_file(), "is not a file");
    let mut text = Vec::new();
    let read = tokio::fs::File::open(path).await?.take(LARGEST + 1).read_to_end(&mut text).await?;
    ensure!(u64::try_from(read).is_ok_and(|read| read <= LARGEST), "is larger than {} MiB", LARGEST >> 20);
    Ok(text)
}

/// From when to when a certificate is valid.
fn validity(certificate: &[u8]) -> Option<[SystemTime; 2]> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let validity = certificate.validity();
    [validity.not_before, validity.not_after]
        .map(|time| {
            // before 1970 is long ago, too
            UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
        })
        .into()
}

/// The reason in words: the library's own has the bytes of the file.
fn words(error: pem::Error) -> anyhow::Error {
    match error {
        pem::Error::MissingSectionEnd { .. } => anyhow!("a section has no END line: is the file cut off?"),
        pem::Error::IllegalSectionStart { .. } => anyhow!("a BEGIN line cannot be read"),
        pem::Error::Base64Decode(_) => anyhow!("the text between BEGIN and END is not base64"),
        pem::Error::NoItemsFound => anyhow!("no private key in it"),
        other => other.into(),
    }
}
