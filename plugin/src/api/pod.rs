//! Pods of the API server as the values that [`crate::allocation`] keeps.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kerf::annotation::{self, Keys, Record};
use kerf::ids::PodUid;
use kerf::k8s;
use kerf_runtime::guarded::Guarded;
use kube::Resource as _;

use crate::allocation::{self, Bystander, Seen, Stage};

/// A Pod of this node, as far as it can be read; `None` for an object that the API server never sends.
pub fn seen(object: Guarded<Pod>, keys: &Keys) -> Option<Seen> {
    let uid = uid(object.meta());
    match object.readable() {
        Some(object) => pod(&object, keys),
        None => Some(Seen::Unreadable { uid: uid? }),
    }
}

fn pod(object: &Pod, keys: &Keys) -> Option<Seen> {
    let view = k8s::pod(object, keys)?;
    let annotations = object.metadata.annotations.as_ref();
    let stage = match (view.ended, &object.metadata.deletion_timestamp) {
        (true, _) => Stage::Ended,
        (false, Some(_)) => Stage::Terminating,
        (false, None) => Stage::Live,
    };
    let status = object.status.as_ref();
    let statuses = status.into_iter().flat_map(|status| {
        let inits = status.init_container_statuses.iter().flatten();
        inits.chain(status.container_statuses.iter().flatten())
    });
    let runtime_ids: BTreeMap<_, _> = statuses
        .filter_map(|status| {
            let (_, id) = status.container_id.as_deref()?.split_once("://")?;
            Some((id.to_owned(), status.name.as_str().into()))
        })
        .collect();
    let Some(holding) = view.holding else {
        let pod = Bystander { uid: view.uid, reference: view.pod, runtime_ids };
        return Some(Seen::Other { pod, stage });
    };
    let created = object.metadata.creation_timestamp.as_ref();
    let record = match holding.record {
        Record::Placed(placement) => Some(placement),
        Record::Absent => None,
        Record::Unreadable(error) => {
            tracing::debug!(pod = %view.pod, uid = %view.uid, %error, "placement not believed");
            None
        }
    };
    Some(Seen::Claimant(Box::new(allocation::Pod {
        uid: view.uid,
        reference: view.pod,
        node: holding.node,
        created: created.and_then(|time| u64::try_from(time.0.as_nanosecond()).ok()).unwrap_or_default(),
        request: holding.request.as_ref().clone(),
        record,
        confirmed: annotations.is_some_and(|annotations| annotation::confirmed(annotations, keys)),
        isolated: annotations
            .and_then(|annotations| annotation::isolation::decode(annotations.get(&keys.isolated)?).ok()),
        stage,
        users: k8s::users(object),
        runtime_ids,
    })))
}

pub fn uid(metadata: &ObjectMeta) -> Option<PodUid> {
    metadata.uid.as_deref().map(PodUid::from)
}
