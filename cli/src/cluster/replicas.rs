//! kerf's schedulers, each with an extender, and which of them is in use.

use std::collections::BTreeSet;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kerf::k8s::lease_holder;

/// The lease by which they are elected, and the `app.kubernetes.io/name` of their pods.
const NAME: &str = "kerf-scheduler";

/// What is known of them.
#[derive(Debug, Default)]
pub struct Replicas {
    /// Where the lease is known, who holds it; empty: nobody.
    holder: Option<String>,
    pods: BTreeSet<String>,
}

impl Replicas {
    pub fn pod(&mut self, pod: &Pod) {
        let labels = pod.metadata.labels.as_ref();
        if labels.and_then(|labels| labels.get("app.kubernetes.io/name")).is_some_and(|name| name == NAME) {
            self.pods.extend(pod.metadata.name.clone());
        }
    }

    pub fn lease(&mut self, lease: &Lease) {
        if lease.metadata.name.as_deref() == Some(NAME) {
            self.holder = Some(lease_holder(lease).to_owned());
        }
    }

    fn standby(&self) -> impl Iterator<Item = &str> {
        self.pods.iter().map(String::as_str).filter(|pod| Some(*pod) != self.holder.as_deref())
    }

    /// Who holds the lease, if anybody does, and the others. `None` where the lease is not known.
    pub fn known(&self) -> Option<(Option<String>, Vec<String>)> {
        let holder = self.holder.as_ref()?;
        let active = (!holder.is_empty()).then(|| holder.clone());
        Some((active, self.standby().map(str::to_owned).collect()))
    }
}
