//! Waiting for a condition, with a deadline and the reason why it does not hold yet.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::process::Ended;

/// Tries again and again until it succeeds.
///
/// # Errors
/// The last one, after `limit`; at once where a program has ended that should run.
pub async fn until<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        // an attempt that hangs is one that failed
        let tried = tokio::time::timeout(Duration::from_secs(15).min(limit), attempt()).await;
        match tried.context("no answer").flatten() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end || error.is::<Ended>() => {
                return Err(error.context(format!("waited up to {limit:?} until: {what}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
