//! Prometheus' HTTP API (<https://prometheus.io/docs/prometheus/latest/querying/api/>), by the HTTP client that kerf has for the
//! API server: it knows TLS, tokens and proxies.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kube::{Client, Config};
use serde::Deserialize;

/// A sum over weeks takes Prometheus seconds; by itself it gives up after two minutes.
const PATIENCE: Duration = Duration::from_secs(130);
const CONNECT: Duration = Duration::from_secs(5);
/// At most so much of an answer that is none of Prometheus' is repeated.
const SHOWN: usize = 200;

pub struct Prometheus {
    url: String,
    config: Config,
}

/// Asks one Prometheus.
#[derive(Clone)]
pub struct Query {
    url: String,
    client: Client,
}

/// One series: its labels, and its value.
pub type Series = (BTreeMap<String, String>, f64);

#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    /// A time, and the value as a text.
    value: (f64, String),
}

impl Prometheus {
    /// At this URL, which may have a path.
    ///
    /// # Errors
    /// Where it is no URL, or a file is not there.
    pub fn new(url: &str, token_file: Option<&Path>, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let parsed: http::Uri =
            url.parse().with_context(|| format!("--prometheus {url:?} is no URL such as http://127.0.0.1:9090"))?;
        ensure!(
            matches!(parsed.scheme_str(), Some("http" | "https")) && parsed.host().is_some(),
            "--prometheus {url:?} is no URL such as http://127.0.0.1:9090"
        );
        if let Some(path) = ca_file {
            std::fs::metadata(path).with_context(|| format!("--ca-file {}", path.display()))?;
        }
        let mut config = Config::new(parsed);
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(PATIENCE);
        config.root_cert_file = ca_file.map(Path::to_owned);
        if let Some(path) = token_file {
            let token =
                std::fs::read_to_string(path).with_context(|| format!("--token-file {}", path.display()))?;
            config.auth_info.token = Some(token.trim().to_owned().into());
        }
        Ok(Self { url: url.to_owned(), config })
    }

    /// Has a function ask it.
    ///
    /// # Errors
    /// The function's, and where the system has no certificates of authorities.
    pub fn ask<T, F: Future<Output = anyhow::Result<T>>>(self, ask: impl FnOnce(Query) -> F) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = Client::try_from(self.config).with_context(|| self.url.clone())?;
            ask(Query { url: self.url, client }).await
        })
    }
}

impl Query {
    /// The series that a query gives now.
    ///
    /// # Errors
    /// Where there is no answer, or one that says what is wrong; with the URL.
    pub async fn run(&self, query: &str) -> anyhow::Result<Vec<Series>> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let request = http::Request::get(format!("/api/v1/query?query={encoded}")).body(Vec::new())?;
        let answer = tokio::time::timeout(PATIENCE, self.client.request_text(request));
        let text = match answer.await.with_context(|| format!("{}: no answer within {PATIENCE:?}", self.url))? {
            Ok(text) => text,
            Err(kube::Error::Api(status)) => bail!("{}: {} ({})", self.url, said(&status.message), status.code),
            Err(error) => {
                let advice = "see --prometheus; with kubectl port-forward Prometheus is at http://127.0.0.1:9090";
                return Err(anyhow::Error::new(error).context(format!("{} does not answer ({advice})", self.url)));
            }
        };
        let answer: Answer = serde_json::from_str(&text)
            .with_context(|| format!("{}: not Prometheus' API: {:?}", self.url, shortened(&text)))?;
        if let Some(error) = answer.error {
            bail!("{}: {error}", self.url);
        }
        let found = answer.data.map(|data| data.result).unwrap_or_default();
        let series = found.into_iter().filter_map(|found| Some((found.metric, found.value.1.parse().ok()?)));
        Ok(series.collect())
    }
}

/// Prometheus' own words, or those of what is before it.
fn said(message: &str) -> String {
    let own = serde_json::from_str::<Answer>(message).ok().and_then(|answer| answer.error);
    own.unwrap_or_else(|| shortened(message))
}

fn shortened(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
