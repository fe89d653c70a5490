//! TLS for clients with a certificate, from files that may be replaced while the process runs.

mod files;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

pub use files::Files;
use files::{Texts, Usable};

/// What new connections are accepted with. Clones share it.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Files,
    current: Arc<RwLock<Current>>,
}

#[derive(Debug)]
struct Current {
    texts: Texts,
    usable: Usable,
    /// Cancelled when the authorities of clients are others.
    outdated: CancellationToken,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Where one cannot be used; the text names it.
    pub async fn load(files: Files) -> anyhow::Result<Self> {
        let texts = files.read().await?;
        let usable = files.parse(&texts)?;
        if let Some(why) = usable.invalid(SystemTime::now()) {
            tracing::warn!(file = %files.certificate.display(), "{why}: clients refuse it");
        }
        Ok(Self {
            files,
            current: Arc::new(RwLock::new(Current { texts, usable, outdated: CancellationToken::new() })),
        })
    }

    /// Reads the files again and again. Where they have changed and can be used together, new connections are accepted
    /// with them; otherwise with the last that could. Connections that were accepted for other authorities of clients end
    /// after the request that they are in.
    pub async fn follow(self, every: Duration, token: CancellationToken) {
        let mut told = None;
        while token.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            let Some(read) = token.run_until_cancelled(self.again()).await else { return };
            let trouble = match read {
                Ok(changed) => {
                    if changed {
                        tracing::info!(files = ?self.files, "certificates have changed");
                    }
                    let why = self.current.read().usable.invalid(SystemTime::now());
                    why.map(|why| format!("{}: {why}: clients refuse it", self.files.certificate.display()))
                }
                // also while one of the files has been replaced and the others have not yet
                Err(error) => Some(format!("cannot be used, so the last ones are: {error:#}")),
            };
            if trouble != told
                && let Some(trouble) = &trouble
            {
                tracing::warn!(trouble, "certificates");
            }
            told = trouble;
        }
    }

    async fn again(&self) -> anyhow::Result<bool> {
        let texts = self.files.read().await?;
        if self.current.read().texts == texts {
            return Ok(false);
        }
        let usable = self.files.parse(&texts)?;
        let now = SystemTime::now();
        let mut current = self.current.write();
        if let (Some(why), None) = (usable.invalid(now), current.usable.invalid(now)) {
            anyhow::bail!("{}: {why}", self.files.certificate.display());
        }
        let others = current.texts.client_ca != texts.client_ca;
        let outdated = if others { CancellationToken::new() } else { current.outdated.clone() };
        let last = std::mem::replace(&mut *current, Current { texts, usable, outdated });
        if others {
            last.outdated.cancel();
        }
        Ok(true)
    }

    /// What a connection is accepted with now, and what ends it once clients' authorities are others.
    pub(super) fn current(&self) -> (Arc<ServerConfig>, CancellationToken) {
        let current = self.current.read();
        (current.usable.config.clone(), current.outdated.clone())
    }
}

/// # Errors
/// Where the handshake fails, as without a certificate of an authority of clients.
pub(super) async fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    TlsAcceptor::from(config).accept(stream).await
}

#[cfg(test)]
mod tests;
