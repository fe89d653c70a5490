//! Questions about containers that a container might delay: each has a thread of its own, and all are waited for until one
//! deadline. Who has not answered by then is not asked again until it has, so that it holds one thread at most and delays
//! the others once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

/// Longer than a machine under load needs for some files in memory, and shorter than the time between two measurements.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct InTime<K> {
    patience: Duration,
    asked: BTreeMap<K, JoinHandle<()>>,
}

impl<K> Default for InTime<K> {
    fn default() -> Self {
        Self { patience: PATIENCE, asked: BTreeMap::new() }
    }
}

impl<K: Ord + Clone + Send + 'static> InTime<K> {
    /// The answers that came in time.
    pub async fn ask<T: Send + 'static>(
        &mut self,
        questions: Vec<(K, impl FnOnce() -> T + Send + 'static)>,
    ) -> BTreeMap<K, T> {
        self.asked.retain(|_, task| !task.is_finished());
        let (answers, mut received) = mpsc::unbounded_channel();
        for (key, question) in questions {
            if let Entry::Vacant(free) = self.asked.entry(key) {
                let (answers, of) = (answers.clone(), free.key().clone());
                free.insert(spawn_blocking(move || drop(answers.send((of, question())))));
            }
        }
        drop(answers);
        let deadline = Instant::now() + self.patience;
        let mut found = BTreeMap::new();
        while let Ok(Some((key, answer))) = timeout_at(deadline, received.recv()).await {
            found.insert(key, answer);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    fn blocked(release: Receiver<()>) -> Box<dyn FnOnce() -> u32 + Send> {
        Box::new(move || {
            let _ = release.recv();
            0
        })
    }

    fn plain(answer: u32) -> Box<dyn FnOnce() -> u32 + Send> {
        Box::new(move || answer)
    }

    #[tokio::test]
    async fn who_does_not_answer_delays_the_others_once_and_holds_one_thread() {
        let patience = Duration::from_millis(20);
        let mut in_time = InTime { patience, ..InTime::default() };
        let (release, held) = channel();
        let found = in_time.ask(vec![("a", blocked(held)), ("b", plain(1))]).await;
        assert_eq!(found, BTreeMap::from([("b", 1)]));
        // without any deadline: the blocked one is not waited for again
        in_time.patience = Duration::from_secs(3600);
        let found = in_time.ask(vec![("a", plain(2)), ("b", plain(3))]).await;
        assert_eq!(found, BTreeMap::from([("b", 3)]));
        release.send(()).unwrap();
        in_time.asked.remove("a").unwrap().await.unwrap();
        assert_eq!(in_time.ask(vec![("a", plain(4))]).await, BTreeMap::from([("a", 4)]));
    }
}
