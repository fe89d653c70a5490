//! The pods of the node: seen, admitted one after the other, started, removed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::admission::{admit, wanted};
use super::books::Books;
use super::life::Life;
use super::shared::{RETRY, Shared, pod_path};
use super::starting;
use crate::api::object;
use crate::client::informer::News;
use crate::scheduler::request;

/// The one task that admits pods.
pub(crate) struct Pods {
    shared: Arc<Shared>,
    life: Life,
    /// Pods in the order in which they are to be admitted.
    waiting: VecDeque<Arc<Value>>,
    /// Admitted pods whose start may come at any time.
    startable: Vec<Arc<Value>>,
    starts: HashMap<String, CancellationToken>,
}

impl Pods {
    pub(crate) fn new(shared: Arc<Shared>, life: Life) -> Self {
        Self { shared, life, waiting: VecDeque::new(), startable: Vec::new(), starts: HashMap::new() }
    }

    pub(crate) async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<News>) {
        let mut changes = self.shared.changes();
        loop {
            while let Ok(news) = inbox.try_recv() {
                self.hear(news);
            }
            changes.borrow_and_update();
            if let Some(pod) = self.next() {
                self.admit(pod).await;
                continue;
            }
            while self.start_one() {}
            tokio::select! {
                news = inbox.recv() => match news {
                    Some(news) => self.hear(news),
                    None => return,
                },
                // A plugin may have registered.
                _ = changes.changed() => {}
            }
        }
    }

    /// The first pod all of whose plugins are connected.
    fn next(&mut self) -> Option<Arc<Value>> {
        let books = self.shared.books();
        let free = self.shared.config.reject_unregistered;
        let index = self.waiting.iter().position(|pod| free || is_served(&books, pod))?;
        drop(books);
        self.waiting.remove(index)
    }

    async fn admit(&mut self, pod: Arc<Value>) {
        let shared = self.shared.clone();
        let admitted = admit(&shared, &pod, || {
            if shared.config.shuffle && shared.toss() {
                self.start_one();
            }
        })
        .await;
        if !admitted {
            return;
        }
        self.start_unless_begun(pod);
        if !shared.config.shuffle {
            self.start_one();
        }
    }

    /// Lets an admitted pod start, unless it runs or is already starting.
    fn start_unless_begun(&mut self, pod: Arc<Value>) {
        let uid = object::uid(&pod);
        let pending = self.startable.iter().any(|other| object::uid(other) == uid);
        // one that was admitted before a restart may not have started, or its status was not written
        if object::phase(&pod) != "Running" && !pending && !self.starts.contains_key(uid) {
            self.startable.push(pod);
        }
    }

    /// Starts any of the startable pods; returns whether there was one.
    fn start_one(&mut self) -> bool {
        self.shared.shuffle(&mut self.startable);
        let Some(pod) = self.startable.pop() else {
            return false;
        };
        let cancel = self.life.token.child_token();
        self.starts.insert(object::uid(&pod).to_owned(), cancel.clone());
        self.life.spawn_whole(starting::start(self.shared.clone(), pod, cancel));
        true
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Listed(mut pods) => {
                let listed: HashSet<&str> = pods.iter().map(|pod| object::uid(pod)).collect();
                let known: Vec<String> = self.shared.books().pods.keys().cloned().collect();
                for uid in known.iter().filter(|uid| !listed.contains(uid.as_str())) {
                    self.free(uid);
                }
                self.waiting.retain(|pod| listed.contains(object::uid(pod)));
                // A batch comes by creation; the stamps have whole seconds, so ties are in no order.
                self.shared.shuffle(&mut pods);
                pods.sort_by(|a, b| {
                    let stamp = |pod: &Value| object::text(pod, &["metadata", "creationTimestamp"]).to_owned();
                    stamp(a).cmp(&stamp(b))
                });
                for pod in pods {
                    self.hear_pod(pod);
                }
            }
            News::Applied(pod) => self.hear_pod(pod),
            News::Deleted(pod) => {
                let uid = object::uid(&pod);
                self.free(uid);
                self.shared.books().ended.remove(uid);
                self.waiting.retain(|waiting| object::uid(waiting) != uid);
            }
        }
    }

    fn hear_pod(&mut self, pod: Arc<Value>) {
        let uid = object::uid(&pod).to_owned();
        let ended = object::is_deleting(&pod) || object::is_terminated(&pod);
        if ended {
            self.free(&uid);
            self.waiting.retain(|waiting| object::uid(waiting) != uid);
            if object::is_deleting(&pod) {
                self.life.spawn(finalize(self.shared.clone(), pod));
            }
            return;
        }
        let mut books = self.shared.books();
        if books.ended.contains(&uid) {
            return;
        }
        // After a restart, pods that were admitted before are admitted again in turn, with the devices that they hold.
        if let Some(book) = books.pods.get_mut(&uid).filter(|book| book.admitted && book.present) {
            book.pod = pod.clone();
            drop(books);
            self.start_unless_begun(pod);
            return;
        }
        drop(books);
        match self.waiting.iter_mut().find(|waiting| object::uid(waiting) == uid) {
            Some(waiting) => *waiting = pod,
            None => self.waiting.push_back(pod),
        }
    }

    /// Frees the devices of a pod that has ended.
    fn free(&mut self, uid: &str) {
        if let Some(start) = self.starts.remove(uid) {
            start.cancel();
        }
        self.startable.retain(|pod| object::uid(pod) != uid);
        if self.shared.books().pods.remove(uid).is_some() {
            self.shared.touch();
        }
    }
}

fn is_served(books: &Books, pod: &Value) -> bool {
    request::containers(pod).flat_map(wanted).all(|(resource, _)| books.is_listed(&resource))
}

/// Tells the API server that a deleted pod has ended on the node.
async fn finalize(shared: Arc<Shared>, pod: Arc<Value>) {
    let options = json!({
        "kind": "DeleteOptions",
        "apiVersion": "v1",
        "gracePeriodSeconds": 0,
        "preconditions": { "uid": object::uid(&pod) },
    });
    loop {
        match shared.client.delete(&pod_path(&pod), &options).await {
            Ok(_) => return,
            Err(error) if matches!(error.code(), Some(404 | 409)) => return,
            Err(error) => {
                tracing::debug!(%error, "pod not removed");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
