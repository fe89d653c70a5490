//! Preemption for a pod that fits nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::preemption::{self, Candidate};
use super::super::request;
use super::Run;
use crate::api::object;

impl Run {
    /// Evicts pods of lower priority from a node so that this one fits there; returns the node.
    pub(super) async fn preempt(
        &mut self,
        pod: &Arc<Value>,
        unresolvable: &BTreeMap<String, String>,
    ) -> Option<String> {
        let never = object::text(pod, &["spec", "preemptionPolicy"]) == "Never";
        if !self.config.preempts || never || self.cluster.awaits_eviction(pod) {
            return None;
        }
        let is_open = |node: &str| !unresolvable.contains_key(node);
        let mut candidates = preemption::candidates(&self.cluster, pod, &self.budgets, is_open);
        if let Some(extender) = self.cycle.extender.as_ref().filter(|extender| extender.is_interested(pod)) {
            let pods = self.cluster.pods();
            let on_node =
                |node: &str| pods.get(node).into_iter().flatten().map(|pod| Arc::clone(pod)).collect::<Vec<_>>();
            candidates = match extender.preempt(pod, candidates.clone(), on_node).await {
                Ok(left) => left,
                Err(error) if extender.config().ignorable => {
                    tracing::warn!(%error, "ignorable extender skipped");
                    candidates
                }
                Err(error) => {
                    tracing::warn!(%error, pod = object::name(pod), "no preemption");
                    return None;
                }
            };
        }
        let Candidate { node, victims, .. } = preemption::pick(candidates)?;
        for victim in &victims {
            self.evict(victim);
        }
        for uid in self.cluster.nominated_below(&node, request::priority(pod)) {
            self.cluster.nominate_no_more(&uid);
            if let Some(other) = self.queue.pod(&uid) {
                self.write_nomination(&other, "");
            }
        }
        // where it is nominated there already, the write causes no event
        let assumed = object::text(pod, &["status", "nominatedNodeName"]) != node;
        self.cluster.nominate_to(pod, &node, assumed);
        self.write_nomination(pod, &node);
        Some(node)
    }

    /// Deletes a pod; one that is not bound yet is refused.
    fn evict(&mut self, pod: &Arc<Value>) {
        let uid = object::uid(pod);
        if let Some(waiting) = self.waiting.remove(uid) {
            self.refuse(&waiting, "preempted".to_owned());
            return;
        }
        let path = format!("/api/v1/namespaces/{}/pods/{}", object::namespace(pod), object::name(pod));
        let options = json!({ "preconditions": { "uid": uid } });
        let client = self.client.clone();
        self.tasks.spawn(async move {
            if let Err(error) = client.delete(&path, &options).await {
                tracing::warn!(%error, path, "not evicted");
            }
        });
    }
}
