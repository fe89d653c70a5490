//! The real extender as a process, and a bare HTTP/1.1 connection to it.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kerf_bench_support::memory;
use kerf_testkit::api::ApiServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub struct ExtenderProcess {
    child: Child,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    pub debug: SocketAddr,
    _folder: tempfile::TempDir,
}

impl ExtenderProcess {
    pub async fn start(program: &str, api: &ApiServer) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        api.write_kubeconfig(&kubeconfig)?;
        // a free port: bound, then released
        let free = async || TcpListener::bind("127.0.0.1:0").await;
        let free = [free().await?, free().await?, free().await?];
        let [address, metrics, debug] = free.each_ref().map(TcpListener::local_addr);
        let (address, metrics, debug) = (address?, metrics?, debug?);
        drop(free);
        let child = Command::new(program)
            .args(["--listen", &address.to_string(), "--metrics-listen", &metrics.to_string()])
            .args(["--debug-listen", &debug.to_string(), "--log", "error", "--kubeconfig"])
            .arg(&kubeconfig)
            .stdout(Stdio::null())
            .spawn()
            .context(program.to_owned())?;
        let mut process = Self { child, address, metrics, debug, _folder: folder };
        let ready = async {
            while !process.is_ready().await {
                if let Some(status) = process.child.try_wait()? {
                    bail!("the extender ended: {status}");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(120), ready).await.context("the extender is not ready")??;
        Ok(process)
    }

    async fn is_ready(&self) -> bool {
        let Ok(mut connection) = Connection::open(self.metrics).await else { return false };
        connection.get("/readyz").await.is_ok()
    }

    /// Resident memory, now and at its peak.
    pub fn memory_mib(&self) -> anyhow::Result<(f64, f64)> {
        memory::resident_mib(self.child.id())
    }

    pub fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for ExtenderProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Little more than the socket, so that the extender is measured and not an HTTP client.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::new() })
    }

    pub async fn get(&mut self, path: &str) -> anyhow::Result<&[u8]> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes(), b"").await
    }

    pub async fn post(&mut self, verb: &str, body: &[u8]) -> anyhow::Result<&[u8]> {
        let head = format!(
            "POST /scheduler/{verb} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.send(head.as_bytes(), body).await
    }

    async fn send(&mut self, head: &[u8], body: &[u8]) -> anyhow::Result<&[u8]> {
        self.stream.write_all(head).await?;
        self.stream.write_all(body).await?;
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "connection closed");
            let Some(end) = self.answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(self.answer.get(..end).unwrap_or_default())?.to_ascii_lowercase();
            ensure!(head.starts_with("http/1.1 200"), "answer: {head}");
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .context("no content-length")?
                .trim()
                .parse()?;
            self.answer.reserve(length);
            while self.answer.len() < end + 4 + length {
                ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "connection closed");
            }
            return Ok(self.answer.get(end + 4..).unwrap_or_default());
        }
    }
}
