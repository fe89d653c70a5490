//! Who holds a Lease of kube-scheduler's.

use k8s_openapi::api::coordination::v1::Lease;

/// The name of the host of who holds the lease, for a pod its own; empty where nobody does. kube-scheduler's identity is
/// this name, `_` and a number of its own (`cmd/kube-scheduler/app/options`, `ApplyLeaderElectionTo`).
pub fn lease_holder(lease: &Lease) -> &str {
    let identity = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    identity.rsplit_once('_').map_or(identity, |(host, _)| host)
}
