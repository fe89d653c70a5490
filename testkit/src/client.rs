//! The HTTP client with which this crate's scheduler and kubelets talk to an API server.

pub(crate) mod informer;

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::api::lag::STAND_IN;

/// Timeout of a write or a list.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A refused or failed request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The API server answered with a `Status`.
    #[error("{message}")]
    Refused { code: u16, message: String },
    /// No answer, so it is unknown whether the request was carried out.
    #[error("no answer from the API server: {0}")]
    Unknown(String),
}

impl ApiError {
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Unknown(_) => None,
        }
    }
}

impl From<reqwest::Error> for ApiError {
    fn from(error: reqwest::Error) -> Self {
        Self::Unknown(format!("{:#}", anyhow::Error::new(error)))
    }
}

/// One program's view of the API server.
#[derive(Clone, Debug)]
pub(crate) struct ApiClient {
    http: reqwest::Client,
    base: String,
}

impl ApiClient {
    /// A client that calls itself `kerf-testkit-<program>`.
    pub(crate) fn new(url: &str, program: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .user_agent(format!("{STAND_IN}-{program}"))
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .context("build an HTTP client")?;
        Ok(Self { http, base: url.trim_end_matches('/').to_owned() })
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.send(self.http.post(self.url(path)), "application/json", body).await
    }

    /// A strategic merge patch, the kind that kubelet and scheduler send.
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        let request = self.http.patch(self.url(path));
        self.send(request, "application/strategic-merge-patch+json", body).await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Result<Value, ApiError> {
        self.send(self.http.delete(self.url(path)), "application/json", options).await
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ApiError> {
        let url = self.url_with(path, query)?;
        answer(self.http.get(url).timeout(TIMEOUT).send().await?).await
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        content_type: &str,
        body: &Value,
    ) -> Result<Value, ApiError> {
        let request = request.timeout(TIMEOUT).header("content-type", content_type).body(body.to_string());
        answer(request.send().await?).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn url_with(&self, path: &str, query: &[(&str, &str)]) -> Result<reqwest::Url, ApiError> {
        reqwest::Url::parse_with_params(&self.url(path), query)
            .map_err(|error| ApiError::Unknown(error.to_string()))
    }
}

async fn answer(response: reqwest::Response) -> Result<Value, ApiError> {
    let code = response.status();
    let body = response.bytes().await?;
    if code.is_success() {
        return serde_json::from_slice(&body).map_err(|error| ApiError::Unknown(error.to_string()));
    }
    let message = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|status| status.get("message")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    Err(ApiError::Refused { code: code.as_u16(), message })
}
