//! Binding, by the extender or by the scheduler itself.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Run;
use crate::api::object;
use crate::client::ApiClient;
use crate::scheduler::journal::Outcome;
use crate::scheduler::message::Message;
use crate::scheduler::wire::ExtenderBindingArgs;

impl Run {
    /// Starts the bind call; its result comes back as a message.
    pub(super) fn bind(&mut self, pod: &Arc<Value>, node: String, attempt: u64) {
        self.binding.insert(object::uid(pod).to_owned());
        let args = ExtenderBindingArgs {
            pod_name: object::name(pod).to_owned(),
            pod_namespace: object::namespace(pod).to_owned(),
            pod_uid: object::uid(pod).to_owned(),
            node,
        };
        let extender = self
            .cycle
            .extender
            .clone()
            .filter(|extender| !extender.config().bind_verb.is_empty() && extender.is_interested(pod));
        let client = self.client.clone();
        let messages = self.messages.clone();
        self.tasks.spawn(async move {
            let started = Instant::now();
            let result = match extender {
                Some(extender) => extender.bind(&args).await.map_err(|error| error.to_string()),
                None => bind_directly(&client, &args).await,
            };
            let bound = Message::Bound { uid: args.pod_uid, attempt, took: started.elapsed(), result };
            // The loop may have ended in the meantime.
            let _ended = messages.send(bound);
        });
    }

    pub(super) fn hear_bound(&mut self, uid: &str, attempt: u64, took: Duration, result: Result<(), String>) {
        self.binding.remove(uid);
        match result {
            Ok(()) => {
                self.bound += 1;
                self.journal.bound(attempt, took, Outcome::Bound);
            }
            Err(why) => {
                self.journal.bound(attempt, took, Outcome::BindFailed(why.clone()));
                self.cluster.forget(uid);
                // Unless the API already shows it on a node, or it is gone.
                if let Some(pod) = self.queue.pod(uid) {
                    if self.cluster.nomination(&pod).is_some() {
                        self.nominate(&pod, "");
                    }
                    self.explain(uid, "SchedulerError", &why);
                    self.queue.back_off(uid, Instant::now());
                }
                self.queue.wake_all(Instant::now());
            }
        }
    }
}

async fn bind_directly(client: &ApiClient, args: &ExtenderBindingArgs) -> Result<(), String> {
    let path = format!("/api/v1/namespaces/{}/pods/{}/binding", args.pod_namespace, args.pod_name);
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "name": args.pod_name, "namespace": args.pod_namespace, "uid": args.pod_uid },
        "target": { "kind": "Node", "name": args.node },
    });
    client.post(&path, &binding).await.map(drop).map_err(|error| error.to_string())
}
