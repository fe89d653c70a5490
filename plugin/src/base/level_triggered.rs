//! Keeps what is published as it should be: computes it, writes it where something else is shown, logs a failure
//! once, and tries again.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::backoff::Backoff;

/// When to publish again: not before `quiet`, then with the next change, and after `most` in any case, if it is
/// given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    pub quiet: Duration,
    pub most: Option<Duration>,
}

impl Next {
    /// With the next change, and after `most` in any case.
    pub fn within(most: Duration) -> Self {
        Self { quiet: Duration::ZERO, most: Some(most) }
    }

    /// With the next change.
    pub fn change() -> Self {
        Self { quiet: Duration::ZERO, most: None }
    }
}

pub trait Publisher: Send {
    type Error: Display + Send;

    /// Writes what should be shown, where it is not.
    fn publish(&mut self) -> impl Future<Output = Result<Next, Self::Error>> + Send;

    /// Waits until there may be something to write; `false`: there never will be again.
    fn changed(&mut self) -> impl Future<Output = bool> + Send;

    /// Counts a failure, and logs it where it is `new`: not the same as the last one.
    fn failed(&mut self, error: &Self::Error, new: bool, backoff: &mut Backoff) -> Next;
}

/// Publishes until `token` is cancelled or nothing will change any more. A write that has begun is finished.
pub async fn follow<P: Publisher>(publisher: &mut P, token: &CancellationToken) {
    let mut backoff = Backoff::of_api_server();
    let mut trouble = None;
    loop {
        let next = match publisher.publish().await {
            Ok(next) => {
                backoff.reset();
                trouble = None;
                next
            }
            Err(error) => {
                let text = error.to_string();
                let new = trouble.as_ref() != Some(&text);
                trouble = Some(text);
                publisher.failed(&error, new, &mut backoff)
            }
        };
        if token.run_until_cancelled(tokio::time::sleep(next.quiet)).await.is_none() {
            return;
        }
        let rest = next.most.map(|most| most.saturating_sub(next.quiet));
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            more = publisher.changed() => if !more { return },
            () = tokio::time::sleep(rest.unwrap_or_default()), if rest.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails as often as it is told to; ends after its last change.
    struct Script {
        failures: Vec<&'static str>,
        said: Vec<&'static str>,
        changes: usize,
        published: usize,
    }

    impl Publisher for Script {
        type Error = &'static str;

        async fn publish(&mut self) -> Result<Next, Self::Error> {
            match self.failures.pop() {
                Some(error) => Err(error),
                None => {
                    self.published += 1;
                    Ok(Next::change())
                }
            }
        }

        async fn changed(&mut self) -> bool {
            self.changes = self.changes.saturating_sub(1);
            self.changes > 0
        }

        fn failed(&mut self, error: &Self::Error, new: bool, backoff: &mut Backoff) -> Next {
            if new {
                self.said.push(error);
            }
            backoff.failed();
            Next { quiet: Duration::ZERO, most: Some(Duration::ZERO) }
        }
    }

    #[tokio::test]
    async fn each_trouble_is_told_once_and_each_change_is_published() {
        let failures = vec!["b", "a", "a"];
        let mut script = Script { failures, said: Vec::new(), changes: 6, published: 0 };
        follow(&mut script, &CancellationToken::new()).await;
        assert_eq!(script.said, ["a", "b"]);
        assert!(script.published >= 2, "{}", script.published);
    }

    #[tokio::test]
    async fn it_ends_with_the_token() {
        let token = CancellationToken::new();
        token.cancel();
        let mut script = Script { failures: Vec::new(), said: Vec::new(), changes: usize::MAX, published: 0 };
        follow(&mut script, &token).await;
        assert_eq!(script.published, 1);
    }
}
