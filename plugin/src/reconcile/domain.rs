//! Pods of another resource domain on this node: after a change of `--domain` the GPUs that they hold are not
//! counted anywhere, so no GPU is given to any pod until they have ended. The log, an event of the Node and
//! readiness report it.

use k8s_openapi::jiff::Timestamp;

use crate::allocation::OtherDomain;
use crate::api::{About, Cluster, EventText, OTHER_DOMAIN};
use crate::state::State;

/// What was logged and published about them.
#[derive(Default)]
pub(super) struct Domain {
    told: Option<OtherDomain>,
    /// An event that is not written yet.
    pending: Option<(About, EventText)>,
}

impl Domain {
    /// Reports changes. Returns whether there are no such pods.
    pub(super) async fn tell(&mut self, state: &State, cluster: &Cluster) -> bool {
        let now = state.allocations(|allocations| allocations.other_domain().cloned());
        // one of several pods is named: another one of them is not a change
        let resource = |other_domain: &Option<OtherDomain>| {
            other_domain.as_ref().map(|other_domain| other_domain.resource.clone())
        };
        if resource(&now) != resource(&self.told) {
            let event = match &now {
                Some(other_domain) => {
                    tracing::error!(pod = %other_domain.pod, resource = other_domain.resource, "{other_domain}");
                    EventText::warning(OTHER_DOMAIN, other_domain.to_string())
                }
                None => {
                    let message = "no pod of another resource domain holds cards any more".to_owned();
                    tracing::info!("{message}");
                    EventText::normal("OneResourceDomain", message)
                }
            };
            let name = format!("domain-{:x}", Timestamp::now().as_nanosecond());
            self.pending = Some((About::Node(name), event));
            self.told.clone_from(&now);
        }
        if let Some((about, event)) = &self.pending {
            match cluster.event(about, event).await {
                Err(error) if !error.refused() => tracing::debug!(%error, "event not written; trying again"),
                _ => self.pending = None,
            }
        }
        now.is_none()
    }
}
