//! A real Prometheus, on a free port of the loopback interface. Debian's package `prometheus` has it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stack::PATIENCE;

/// How often it scrapes, and how often it evaluates rules.
const PERIOD: &str = "250ms";

/// A program that Prometheus scrapes, with labels as its operator gives them.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where its metrics are.
    pub address: SocketAddr,
    /// Names and values.
    pub labels: Vec<(&'static str, String)>,
}

/// It ends when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    child: Child,
    url: String,
    targets: PathBuf,
    folder: TempDir,
}

/// One series of an answer: its labels, and its value.
pub type Series = (Value, f64);

/// Whether a test with Prometheus runs here. Without it the test says that it was skipped, unless
/// `KERF_PROMETHEUS=required` wants it.
///
/// # Panics
/// Where it is required and absent.
pub fn is_there() -> bool {
    let found = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let there = found("prometheus") && found("promtool");
    if !there {
        let required = std::env::var("KERF_PROMETHEUS").is_ok_and(|value| value == "required");
        assert!(!required, "no prometheus and promtool: they are in Debian's package prometheus");
        eprintln!("skipped: no prometheus and promtool, which are in Debian's package prometheus");
    }
    there
}

impl Prometheus {
    /// Starts it with these groups of rules. It scrapes nothing yet.
    pub async fn start(groups: &Value) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let write = |name: &str, content: &Value| -> anyhow::Result<PathBuf> {
            let path = folder.path().join(name);
            std::fs::write(&path, content.to_string())?;
            Ok(path)
        };
        // JSON is YAML
        let targets = write("targets.json", &json!([]))?;
        let rules = write("rules.json", &json!({ "groups": groups }))?;
        let config = json!({
            "global": { "scrape_interval": PERIOD, "scrape_timeout": PERIOD, "evaluation_interval": PERIOD },
            "rule_files": [rules],
            "scrape_configs": [{ "job_name": "kerf", "honor_labels": true,
                                 "file_sd_configs": [{ "files": [targets], "refresh_interval": "1s" }] }],
        });
        let config = write("prometheus.json", &config)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = std::fs::File::create(folder.path().join("log"))?;
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let child = Command::new("prometheus")
            .arg(flag("config.file", &config))
            .arg(flag("storage.tsdb.path", &folder.path().join("data")))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("prometheus")?;
        let started = Self { child, url: format!("http://127.0.0.1:{port}"), targets, folder };
        started.until("ready", async || Ok(started.get("/-/ready").await.map(drop).ok())).await?;
        Ok(started)
    }

    /// Where its API is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it scrapes from now on, and nothing else.
    pub fn scrape(&self, targets: &[Target]) -> anyhow::Result<()> {
        let group = |target: &Target| {
            let labels: serde_json::Map<String, Value> =
                target.labels.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
            json!({ "targets": [target.address.to_string()], "labels": labels })
        };
        let groups: Vec<Value> = targets.iter().map(group).collect();
        let new = self.targets.with_extension("new");
        std::fs::write(&new, json!(groups).to_string())?;
        Ok(std::fs::rename(new, &self.targets)?)
    }

    /// The series that a query gives now.
    ///
    /// # Errors
    /// Where the query is wrong; in Prometheus' words.
    pub async fn query(&self, query: &str) -> anyhow::Result<Vec<Series>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer: Value = serde_json::from_str(&self.get(&format!("/api/v1/query?query={encoded}")).await?)?;
        ensure!(answer["status"] == "success", "{query}: {}", answer["error"]);
        let series = answer["data"]["result"].as_array().context("no result")?;
        let value = |series: &Value| series["value"][1].as_str().and_then(|text| text.parse().ok());
        Ok(series.iter().filter_map(|series| Some((series["metric"].clone(), value(series)?))).collect())
    }

    /// The names of all series that it has had.
    pub async fn names(&self) -> anyhow::Result<Vec<String>> {
        let answer: Value = serde_json::from_str(&self.get("/api/v1/label/__name__/values").await?)?;
        Ok(serde_json::from_value(answer["data"].clone())?)
    }

    /// Waits until `look` finds something.
    ///
    /// # Errors
    /// With the end of Prometheus' log.
    pub async fn until<T>(
        &self,
        what: &str,
        look: impl AsyncFn() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let looking = async {
            loop {
                if let Some(found) = look().await? {
                    return Ok(found);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(found) => found,
            Err(_) => {
                let log = std::fs::read_to_string(self.folder.path().join("log"))?;
                let end: Vec<&str> = log.lines().rev().take(5).collect();
                anyhow::bail!("never: {what}; the end of prometheus' log:\n{}", end.join("\n"))
            }
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let answer = reqwest::get(format!("{}{path}", self.url)).await?;
        // errors of queries have a body that says why
        ensure!(!answer.status().is_server_error(), "{path}: {}", answer.status());
        Ok(answer.text().await?)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
