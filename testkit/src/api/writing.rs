//! create, update, patch and delete: what each may change and what it may not.

use serde_json::{Value, json};

use super::binding;
use super::call::{Answer, Ask};
use super::failure::Failure;
use super::object::{self, Key};
use super::patch::{self, Flavour};
use super::reading::key;
use super::resource::{Resource, Subresource};
use super::store::Store;

/// Grace period of a deleted pod on a node, where the client sets none.
const GRACE_SECONDS: u64 = 30;

pub(crate) fn create(store: &mut Store, ask: &Ask) -> Result<Answer, Failure> {
    let resource = ask.target.resource;
    let mut body = ask.json()?;
    match ask.target.subresource {
        None => {}
        Some(Subresource::Binding) => {
            store.edit(resource, &key(ask), |pod| binding::bind(pod, &body))?;
            return Ok(Answer::Success);
        }
        Some(Subresource::Eviction) => {
            let options = body.get("deleteOptions").cloned().unwrap_or_default();
            remove(store, resource, &key(ask), &options)?;
            return Ok(Answer::Success);
        }
        Some(Subresource::Status) => return Err(method_not_allowed()),
    }
    if ask.target.name.is_some() {
        return Err(method_not_allowed());
    }
    object::set(&mut body, &["apiVersion"], ask.target.api_version.as_str().into());
    if resource == Resource::Pods {
        // As the real one: a client cannot set the status of a new pod.
        object::set(&mut body, &["status"], json!({ "phase": "Pending" }));
        object::unset(&mut body, &["metadata", "deletionTimestamp"]);
    }
    object::unset(&mut body, &["metadata", "uid"]);
    object::unset(&mut body, &["metadata", "creationTimestamp"]);
    store.create(resource, ask.target.namespace.as_deref(), body).map(Answer::Created)
}

fn method_not_allowed() -> Failure {
    Failure::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

pub(crate) fn update(store: &mut Store, ask: &Ask) -> Result<Answer, Failure> {
    let body = ask.json()?;
    edit(store, ask, &body, |_| body.clone())
}

pub(crate) fn patch(store: &mut Store, ask: &Ask) -> Result<Answer, Failure> {
    let flavour = Flavour::of(&ask.content_type)?;
    let body = ask.json()?;
    edit(store, ask, &body, |old| {
        let mut new = old.clone();
        patch::apply(flavour, &mut new, &body);
        new
    })
}

fn edit(
    store: &mut Store,
    ask: &Ask,
    body: &Value,
    change: impl FnOnce(&Value) -> Value,
) -> Result<Answer, Failure> {
    let resource = ask.target.resource;
    let part = ask.target.subresource;
    if !matches!(part, None | Some(Subresource::Status)) {
        return Err(method_not_allowed());
    }
    let edited = store.edit(resource, &key(ask), |old| {
        preconditions(resource, old, body.get("metadata"))?;
        restrict(resource, part, old, change(old))
    })?;
    Ok(Answer::Done(edited))
}

/// A uid or a resourceVersion in the body (or in the options of a delete) must be the object's.
fn preconditions(resource: Resource, old: &Value, given: Option<&Value>) -> Result<(), Failure> {
    let Some(given) = given else { return Ok(()) };
    let name = object::name(old);
    let uid = object::text(given, &["uid"]);
    if !uid.is_empty() && uid != object::uid(old) {
        return Err(Failure::wrong_uid(resource.as_str(), name, uid, object::uid(old)));
    }
    let rv = object::text(given, &["resourceVersion"]);
    if !rv.is_empty() && rv != object::text(old, &["metadata", "resourceVersion"]) {
        return Err(Failure::stale(resource.as_str(), name));
    }
    Ok(())
}

/// Restores the fields that this endpoint may not change, and refuses forbidden changes.
fn restrict(resource: Resource, part: Option<Subresource>, old: &Value, mut new: Value) -> Result<Value, Failure> {
    let kept: &[&str] = match (part, resource.has_status()) {
        (Some(_), _) => &["spec"],
        (None, true) => &["status"],
        (None, false) => &[],
    };
    for field in kept {
        match old.get(field) {
            Some(value) => object::set(&mut new, &[field], value.clone()),
            None => object::unset(&mut new, &[field]),
        }
    }
    if resource == Resource::Pods && mutable_spec(old) != mutable_spec(&new) {
        return Err(Failure::invalid(
            "Pod",
            object::name(old),
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
             to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
    }
    Ok(new)
}

/// A pod's spec without the fields that may change.
fn mutable_spec(pod: &Value) -> Value {
    let mut spec = pod.get("spec").cloned().unwrap_or_default();
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        object::unset(&mut spec, &[field]);
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            object::unset(container, &["image"]);
        }
    }
    spec
}

pub(crate) fn delete(store: &mut Store, ask: &Ask) -> Result<Answer, Failure> {
    if ask.target.subresource.is_some() {
        return Err(method_not_allowed());
    }
    let mut options = ask.optional_json()?;
    if let Some(grace) = ask.query.get("gracePeriodSeconds").and_then(|grace| grace.parse::<u64>().ok()) {
        object::set(&mut options, &["gracePeriodSeconds"], grace.into());
    }
    remove(store, ask.target.resource, &key(ask), &options)
}

/// A pod on a node is only marked: its kubelet removes it with a grace period of zero.
pub(crate) fn remove(store: &mut Store, resource: Resource, key: &Key, options: &Value) -> Result<Answer, Failure> {
    let old = store.get(resource, key)?;
    preconditions(resource, &old.value, options.get("preconditions"))?;
    let grace = options.get("gracePeriodSeconds").and_then(Value::as_u64);
    let graceful = resource == Resource::Pods
        && grace != Some(0)
        && !object::node_name(&old.value).is_empty()
        && !object::is_terminated(&old.value);
    if graceful {
        let own = object::at(&old.value, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_u64);
        let grace = grace.or(own).unwrap_or(GRACE_SECONDS);
        return store.mark_deleted(resource, key, grace).map(Answer::Done);
    }
    store.remove(resource, key).map(Answer::Done)
}
