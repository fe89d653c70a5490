//! Whether Kubernetes is new enough, asked at start.

use std::future::Future;
use std::time::Duration;

use kube::Client;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::readiness::Condition;
use kerf::version::{LEAST, Version};

/// The condition that is met once the version is known to be new enough.
pub const CONDITION: &str = "Kubernetes 1.34 or later";

/// The time limit of each request.
const DEADLINE: Duration = Duration::from_secs(5);
/// The first pause after a failed request; each is twice as long as the last, up to `RECHECK`.
const RETRY: Duration = Duration::from_secs(1);
/// How often a version that is too old is checked again: it may be upgraded.
const RECHECK: Duration = Duration::from_secs(5);

/// Asks until the version is one that kerf works with, and then meets the condition. Failed requests are repeated; an
/// answer without a version counts as new enough, and is logged.
pub async fn follow<Asked: Future<Output = anyhow::Result<String>> + Send>(
    whose: &'static str,
    ask: impl Fn() -> Asked + Send,
    supported: Condition,
    token: CancellationToken,
) {
    let asking = async {
        let mut pause = RETRY;
        loop {
            let wait = match timeout(DEADLINE, ask()).await {
                Ok(Ok(found)) => match found.parse::<Version>() {
                    Ok(version) if version < LEAST => {
                        tracing::error!(whose, found, needed = %LEAST, "Kubernetes version is too old; not serving");
                        RECHECK
                    }
                    known => {
                        if known.is_err() {
                            tracing::warn!(whose, found, needed = %LEAST, "Kubernetes version is unknown; continuing");
                        }
                        return supported.set(true);
                    }
                },
                unanswered => {
                    let error = match unanswered {
                        Ok(Err(error)) => format!("{error:#}"),
                        _ => "no answer in time".to_owned(),
                    };
                    tracing::warn!(whose, error, "Kubernetes version cannot be read; trying again");
                    let next = (pause * 2).min(RECHECK);
                    std::mem::replace(&mut pause, next)
                }
            };
            sleep(wait).await;
        }
    };
    token.run_until_cancelled(asking).await;
}

/// The API server's version, from `/version`; empty where the request is forbidden.
///
/// # Errors
/// Where it does not answer.
pub async fn of_api_server(client: Client) -> anyhow::Result<String> {
    match client.apiserver_version().await {
        Ok(info) if info.git_version.parse::<Version>().is_ok() => Ok(info.git_version),
        Ok(info) => Ok(format!("{}.{}", info.major, info.minor)),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}
