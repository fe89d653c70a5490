//! Admission of one pod: devices for all its containers, or a failed pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::books::{Offer, PodBook};
use super::call::Call;
use super::container::{Container, ContainerState};
use super::shared::{Shared, pod_ref};
use crate::api::object;
use crate::scheduler::request;

/// The device plugin resources in a container's limits, sorted.
pub(crate) fn wanted(container: &Value) -> Vec<(String, usize)> {
    object::at(container, &["resources", "limits"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(name, _)| request::is_extended(name))
        .filter_map(|(name, value)| Some((name.clone(), usize::try_from(request::amount(value)).ok()?)))
        .filter(|(_, size)| *size > 0)
        .collect()
}

fn list<'a>(pod: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    object::at(pod, &["spec", name]).and_then(Value::as_array).into_iter().flatten()
}

/// Opens the pod's book and fills it. Returns whether the pod may run; if not, its status tells why.
///
/// `between` is called after every Allocate: events of other pods may happen there.
pub(crate) async fn admit(shared: &Shared, pod: &Arc<Value>, mut between: impl FnMut()) -> bool {
    let uid = object::uid(pod).to_owned();
    let blank = |container: &Value, init: bool| Container {
        namespace: object::namespace(pod).to_owned(),
        pod: object::name(pod).to_owned(),
        uid: uid.clone(),
        name: object::text(container, &["name"]).to_owned(),
        init,
        state: ContainerState::Admitted,
        resources: BTreeMap::new(),
        env: BTreeMap::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        annotations: BTreeMap::new(),
        cdi_devices: Vec::new(),
        conflicts: Vec::new(),
        starts: 0,
        start_errors: Vec::new(),
    };
    let containers = list(pod, "initContainers")
        .map(|init| blank(init, !request::is_sidecar(init)))
        .chain(list(pod, "containers").map(|container| blank(container, false)))
        .collect();
    // A book that exists already is of an admission that a restart cut short.
    shared
        .books()
        .pods
        .entry(uid.clone())
        .or_insert_with(|| PodBook {
            pod: pod.clone(),
            present: true,
            admitted: false,
            containers,
            answers: BTreeMap::new(),
        })
        .present = true;
    // Devices that finished init containers leave to those after them, by resource.
    let mut reusable: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (container, init) in list(pod, "initContainers")
        .map(|container| (container, true))
        .chain(list(pod, "containers").map(|container| (container, false)))
    {
        let got = match allocate(shared, pod, container, &reusable, &mut between).await {
            Ok(got) => got,
            Err(cause) => {
                shared.books().end(&uid);
                reject(shared, pod, &cause).await;
                return false;
            }
        };
        for (resource, ids) in got {
            let left = reusable.entry(resource).or_default();
            if init && !request::is_sidecar(container) {
                left.extend(ids);
            } else {
                left.retain(|id| !ids.contains(id));
            }
        }
    }
    if let Some(book) = shared.books().pods.get_mut(&uid) {
        book.admitted = true;
    }
    shared.touch();
    true
}

async fn reject(shared: &Shared, pod: &Value, cause: &str) {
    let message = format!("Pod was rejected: Allocate failed due to {cause}, which is unexpected");
    shared.note(Call::Rejected { pod: pod_ref(pod), message: message.clone() });
    let status = json!({ "phase": "Failed", "reason": "UnexpectedAdmissionError", "message": message });
    shared.write_status(pod, &status, || true).await;
}

/// Devices for one container, resource by resource.
async fn allocate(
    shared: &Shared,
    pod: &Value,
    container: &Value,
    reusable: &BTreeMap<String, BTreeSet<String>>,
    between: &mut impl FnMut(),
) -> Result<Vec<(String, Vec<String>)>, String> {
    let (uid, name) = (object::uid(pod), object::text(container, &["name"]));
    let mut resources = wanted(container);
    shared.shuffle(&mut resources);
    let mut got = Vec::new();
    for (resource, size) in resources {
        // If there never was a plugin for it, the name means nothing: the container runs without devices.
        if !shared.books().is_known(&resource) {
            continue;
        }
        let mut old: Vec<String> = reusable.get(&resource).into_iter().flatten().cloned().collect();
        shared.shuffle(&mut old);
        let offer = shared.books().offer(uid, name, &resource, size, &old)?;
        let offer = match offer {
            Offer::Choice(choice) => choice,
            Offer::Held(ids) => {
                got.push((resource, ids));
                continue;
            }
        };
        let endpoint = shared.books().endpoint(&resource);
        let endpoint = endpoint.ok_or_else(|| format!("endpoint {resource} has been stopped"))?;
        let mut ids = offer.reused.clone();
        if offer.missing > 0 {
            let mut free = offer.available;
            shared.shuffle(&mut free);
            // An aligned set of exactly the needed size is taken without asking.
            let asks_always = shared.config.ask_without_choice && !offer.topology;
            let asked =
                endpoint.options.get_preferred_allocation_available && (asks_always || offer.missing < free.len());
            let mut chosen = Vec::new();
            if asked {
                let mut available = [free.clone(), offer.reused.clone()].concat();
                shared.shuffle(&mut available);
                let answer = endpoint.preferred(available.clone(), offer.reused.clone(), size).await;
                shared.note(Call::Preferred {
                    pod: pod_ref(pod),
                    container: name.to_owned(),
                    resource: resource.clone(),
                    available,
                    must_include: offer.reused,
                    size,
                    answer: answer.clone(),
                });
                let answer = answer?;
                // Only free ids count, in any order.
                chosen = free.iter().filter(|id| answer.contains(id)).cloned().collect();
            }
            let rest: Vec<String> = free.iter().filter(|id| !chosen.contains(id)).cloned().collect();
            ids.extend(chosen.into_iter().chain(rest).take(offer.missing));
        }
        shared.shuffle(&mut ids);
        let answer = endpoint.allocate(ids.clone()).await;
        shared.note(Call::Allocate {
            pod: pod_ref(pod),
            container: name.to_owned(),
            resource: resource.clone(),
            ids: ids.clone(),
            error: answer.as_ref().err().cloned(),
        });
        shared.books().grant(uid, name, &resource, &ids, answer?);
        got.push((resource, ids));
        between();
    }
    Ok(got)
}
