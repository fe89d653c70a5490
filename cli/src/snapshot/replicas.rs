//! kerf's schedulers, each with an extender, and which of them is in use.

use std::collections::BTreeSet;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kerf::k8s::lease_holder;
use serde_json::{Value, json};

/// The lease by which they are elected, and the `app.kubernetes.io/name` of their pods.
const NAME: &str = "kerf-scheduler";

/// What a snapshot says of them.
#[derive(Debug, Default)]
pub struct Replicas {
    /// Where the snapshot has the lease, who holds it; empty: nobody.
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

    /// `None` where the snapshot does not have the lease.
    pub fn text(&self) -> Option<String> {
        let holder = match self.holder.as_deref()? {
            "" => "nobody",
            holder => holder,
        };
        let standby: Vec<&str> = self.standby().collect();
        let standby = if standby.is_empty() { "none".to_owned() } else { standby.join(", ") };
        Some(format!("scheduler in use: {holder}; standby: {standby}"))
    }

    pub fn report(&self) -> Value {
        let active = self.holder.as_deref().filter(|holder| !holder.is_empty());
        match &self.holder {
            Some(_) => json!({ "active": active, "standby": self.standby().collect::<Vec<_>>() }),
            None => Value::Null,
        }
    }
}
