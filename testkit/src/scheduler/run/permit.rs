//! Permit: pods of a group that have a node wait for the rest of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Run, Waiting};
use crate::api::object;
use crate::scheduler::journal::Outcome;
use crate::scheduler::message::Message;

/// The label by which coscheduling knows a pod's group.
const GROUP: &str = "scheduling.x-k8s.io/pod-group";

impl Run {
    /// A pod of a group waits until enough of the group have a node; then all are bound. Others are bound at once.
    pub(super) fn permit(&mut self, pod: &Arc<Value>, node: String, attempt: u64) {
        let uid = object::uid(pod).to_owned();
        let Some((group, min)) = self.group(pod) else {
            return self.bind(pod, node, attempt);
        };
        self.nominate(pod, &node);
        self.waiting.insert(uid.clone(), Waiting { pod: pod.clone(), node, attempt, group: group.clone() });
        let placed = self.cluster.placed_in(&group);
        if placed >= min {
            for Waiting { pod, node, attempt, .. } in self.take_waiting(&group) {
                self.bind(&pod, node, attempt);
            }
            return;
        }
        let (messages, patience) = (self.messages.clone(), self.config.permit_timeout);
        self.tasks.spawn(async move {
            tokio::time::sleep(patience).await;
            // The loop may have ended in the meantime.
            let _ended = messages.send(Message::PermitOver { uid, attempt });
        });
    }

    /// The group of a pod, and how many of it must have a node before any is bound.
    fn group(&self, pod: &Value) -> Option<(String, usize)> {
        let name = object::text(pod, &["metadata", "labels", GROUP]);
        let min = self.config.groups.get(name)?;
        Some((format!("{}/{name}", object::namespace(pod)), *min))
    }

    /// One pod waited too long: the whole group is refused, as coscheduling does.
    pub(super) fn permit_over(&mut self, uid: &str, attempt: u64) {
        let Some(group) = self.waiting.get(uid).filter(|w| w.attempt == attempt).map(|w| w.group.clone()) else {
            return;
        };
        for waiting in self.take_waiting(&group) {
            self.refuse(&waiting, format!("group {group} did not come together"));
        }
        self.queue.wake_all(Instant::now());
    }

    /// A pod that left Permit does not get its node.
    pub(super) fn refuse(&mut self, waiting: &Waiting, why: String) {
        let uid = object::uid(&waiting.pod);
        self.journal.bound(waiting.attempt, Duration::ZERO, Outcome::Unschedulable(why));
        self.cluster.forget(uid);
        self.nominate(&waiting.pod, "");
        self.queue.wait(uid, Instant::now());
    }

    fn take_waiting(&mut self, group: &str) -> Vec<Waiting> {
        let (of_group, others) = std::mem::take(&mut self.waiting).into_iter().partition(|(_, w)| w.group == group);
        self.waiting = others;
        BTreeMap::into_values(of_group).collect()
    }

    /// Writes the node of a waiting pod into its status (`NominatedNodeNameForExpectation`, 1.35), or removes it.
    pub(super) fn nominate(&self, pod: &Value, node: &str) {
        if self.config.nominates_waiting {
            self.write_nomination(pod, node);
        }
    }

    pub(super) fn write_nomination(&self, pod: &Value, node: &str) {
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", object::namespace(pod), object::name(pod));
        let patch = json!({ "metadata": { "uid": object::uid(pod) }, "status": { "nominatedNodeName": node } });
        let (client, messages) = (self.client.clone(), self.messages.clone());
        let given = (!node.is_empty()).then(|| object::uid(pod).to_owned());
        self.tasks.spawn(async move {
            if let Err(error) = client.patch(&path, &patch).await {
                tracing::debug!(%error, path, "nomination not written");
                // The loop may have ended in the meantime.
                let _ended = given.map(|uid| messages.send(Message::NotNominated { uid }));
            }
        });
    }
}
