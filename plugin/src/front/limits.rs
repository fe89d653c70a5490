//! What is prepared for a container that is held to its share, before kubelet has the answer and before the
//! container starts.

use std::io;

use tonic::Status;

use crate::allocation::{Answer, Refusal};
use crate::device::ids::Ids;
use crate::front::vcuda_controller::Tkestack;
use crate::isolation::demand::{Demand, IsolationError};
use crate::isolation::enforcers::Enforcers;
use crate::offer::hand_over::ContainerEdits;
use crate::state::State;
use crate::state::answers::Answers;

#[derive(Clone)]
pub struct Limits {
    pub enforcers: Enforcers,
    /// The answers, on disk for the next run of the plugin.
    pub answers: Answers,
    /// Serves tkestack's vcuda-controller, where configured.
    pub tkestack: Option<Tkestack>,
}

impl Limits {
    /// Writes down the answer before kubelet has it, and prepares what holds the container to its share.
    ///
    /// # Errors
    /// Where the container cannot be held as it must be; kubelet then fails the pod.
    pub(super) async fn prepare(
        &self,
        state: &State,
        answer: &Answer,
        core: Ids,
    ) -> Result<ContainerEdits, Status> {
        let Self { answers, enforcers, tkestack } = self.clone();
        let (known, given, key) = (state.clone(), core.clone(), answer.key.clone());
        self.blocking(state, move || {
            answers.write(&known)?;
            enforcers.given(&given, |folder| {
                known.allocations(|allocations| allocations.ends(&folder.key, &folder.core, (&key, &given)))
            });
            Ok::<_, io::Error>(())
        })
        .await?;
        let cards = state.cards();
        let hosts = answer.grant.gpus.ids().filter_map(|device| cards.get(device));
        let Some(level) = self.enforcers.level(&answer.grant, hosts, answer.user) else {
            return Ok(ContainerEdits::default());
        };
        if let Some(device) = answer.grant.gpus.ids().next().filter(|_| level < answer.demanded) {
            // the GPU has this isolation, and the container cannot use it
            let (pod, device, demanded) = (answer.reference.clone(), device.clone(), answer.demanded);
            let refusal = Refusal::Isolation { pod, device, demanded, found: level };
            tracing::warn!(%refusal, user = answer.user, "Allocate refused");
            state.failed(refusal.to_string());
            return Err(Status::failed_precondition(refusal.to_string()));
        }
        let (enforcers, served, ids) = (self.enforcers.clone(), answer.clone(), core.clone());
        let tkestack = tkestack.filter(|_| answer.grant.gpus.is_share());
        let provided = self.blocking(state, move || {
            let demand = Demand { key: &served.key, core: &ids, grant: &served.grant, limit: served.limit };
            let mut edits = enforcers.provide(&demand, level)?;
            if let Some(tkestack) = tkestack {
                edits.mounts.push(tkestack.provide(&enforcers.folder(&demand, level)?)?);
            }
            Ok::<_, IsolationError>(edits)
        });
        let edits = provided.await?;
        state.allocations(|allocations| allocations.enforced(&answer.key, core, level));
        Ok(edits)
    }

    /// Restores what holds the container with these ids to its share, where that was lost since Allocate.
    ///
    /// # Errors
    /// Where that is not possible; the container then does not start.
    pub(super) async fn starts(&self, state: &State, core: Ids) -> Result<(), Status> {
        let (enforcers, pods) = (self.enforcers.clone(), state.allocations(|allocations| allocations.view()));
        self.blocking(state, move || enforcers.starts(&core, &pods)).await
    }

    /// On a thread that may wait for the disk. A container without its limits does not start.
    async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
        &self,
        state: &State,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, Status> {
        let unprepared = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "limits of a container cannot be prepared");
            let reason = format!("limits of the container cannot be prepared: {error}");
            state.failed(reason.clone());
            Status::internal(reason)
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(|error| unprepared(&error))?;
        done.map_err(|error| unprepared(&error))
    }
}
