//! Waiting for a condition, with a deadline and the reason why it does not hold yet.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;

/// The condition cannot become true any more, for example because a program has ended that should run.
#[derive(Debug)]
pub struct Never(pub String);

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Never {}

/// Repeats an attempt until it succeeds.
///
/// # Errors
/// The last one, after `limit`; at once where it is [`Never`].
pub async fn until<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        // an attempt that hangs counts as failed
        let tried = tokio::time::timeout(Duration::from_secs(15).min(limit), attempt()).await;
        match tried.context("no answer").flatten() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end || error.is::<Never>() => {
                return Err(error.context(format!("waited up to {limit:?} until: {what}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
