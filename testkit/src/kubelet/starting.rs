//! Start of a pod's containers: `PreStartContainer`, the plugins' answers, the status.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::container::{Container, ContainerState};
use super::shared::{Shared, pod_ref};
use crate::api::object;
use crate::clock;

/// Starts the containers that do not run yet, in order, and reports in the status that the pod runs.
pub(crate) async fn start(shared: Arc<Shared>, pod: Arc<Value>, cancel: CancellationToken) {
    tokio::select! {
        () = run(&shared, &pod) => {}
        () = cancel.cancelled() => {}
    }
}

async fn run(shared: &Shared, pod: &Value) {
    let uid = object::uid(pod);
    loop {
        let next = shared.books().pods.get(uid).and_then(|book| {
            let waiting = |container: &&Container| container.state == ContainerState::Admitted;
            book.containers.iter().find(waiting).map(|container| container.name.clone())
        });
        let Some(container) = next else { break };
        if !start_container(shared, pod, &container).await {
            return;
        }
    }
    let containers = match shared.books().pods.get(uid) {
        Some(book) => book.containers.clone(),
        None => return,
    };
    let status = running(pod, &containers);
    shared.write_status(pod, &status, || shared.books().pods.contains_key(uid)).await;
    shared.touch();
}

/// Starts one container, with retries until it starts; false if its pod is gone.
pub(crate) async fn start_container(shared: &Shared, pod: &Value, container: &str) -> bool {
    let uid = object::uid(pod);
    loop {
        match pre_start(shared, pod, container).await {
            Ok(()) => break,
            Err(error) => {
                if !shared.books().note_failed_start(uid, container, error) {
                    return false;
                }
                shared.touch();
                tokio::time::sleep(shared.config.start_retry).await;
            }
        }
    }
    let mut books = shared.books();
    let Some(book) = books.pods.get_mut(uid) else {
        return false;
    };
    let mut answers: Vec<_> =
        book.answers.iter().filter(|((name, _), _)| name == container).map(|(_, answer)| answer).collect();
    shared.shuffle(&mut answers);
    if let Some(found) = book.containers.iter_mut().find(|found| found.name == container) {
        found.merge(answers.into_iter());
        found.starts += 1;
        found.state = if found.init { ContainerState::Finished } else { ContainerState::Running };
    }
    drop(books);
    shared.note(Call::Started { pod: pod_ref(pod), container: container.to_owned() });
    true
}

async fn pre_start(shared: &Shared, pod: &Value, container: &str) -> Result<(), String> {
    let held = shared.books().pods.get(object::uid(pod)).and_then(|book| {
        let found = book.containers.iter().find(|found| found.name == container)?;
        Some(found.resources.clone())
    });
    let mut resources: Vec<(String, Vec<String>)> =
        held.unwrap_or_default().into_iter().map(|(resource, ids)| (resource, ids.into_iter().collect())).collect();
    shared.shuffle(&mut resources);
    for (resource, mut ids) in resources {
        shared.shuffle(&mut ids);
        let endpoint = shared.books().endpoint(&resource);
        let Some(endpoint) = endpoint else {
            return Err(format!("endpoint {resource} not found in cache for a registered resource"));
        };
        if !endpoint.options.pre_start_required {
            continue;
        }
        let answer = endpoint.pre_start(ids.clone()).await;
        shared.note(Call::PreStart {
            pod: pod_ref(pod),
            container: container.to_owned(),
            resource,
            ids,
            error: answer.as_ref().err().cloned(),
        });
        answer?;
    }
    Ok(())
}

fn running(pod: &Value, containers: &[Container]) -> Value {
    let now = clock::now();
    let image = |name: &str| {
        ["initContainers", "containers"]
            .iter()
            .filter_map(|list| object::at(pod, &["spec", list])?.as_array())
            .flatten()
            .find(|spec| object::text(spec, &["name"]) == name)
            .map_or("", |spec| object::text(spec, &["image"]))
    };
    let status = |container: &Container| {
        let id = format!("testkit://{}/{}/{}", container.uid, container.name, container.starts);
        let state = match container.state {
            ContainerState::Finished => json!({ "terminated": {
                "exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now, "containerID": id,
            } }),
            ContainerState::Admitted | ContainerState::Running => json!({ "running": { "startedAt": now } }),
        };
        json!({
            "name": container.name,
            "image": image(&container.name),
            "imageID": "",
            "containerID": id,
            "ready": true,
            "started": container.state == ContainerState::Running,
            "restartCount": container.starts.saturating_sub(1),
            "state": state,
        })
    };
    let inits: Vec<&str> = object::at(pod, &["spec", "initContainers"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|init| object::text(init, &["name"]))
        .collect();
    let (init, app): (Vec<&Container>, Vec<&Container>) =
        containers.iter().partition(|container| inits.contains(&container.name.as_str()));
    let condition =
        |name: &str| json!({ "type": name, "status": "True", "lastProbeTime": null, "lastTransitionTime": now });
    let conditions = ["Initialized", "Ready", "ContainersReady"].map(condition);
    json!({
        "phase": "Running",
        "startTime": now,
        "conditions": conditions,
        "initContainerStatuses": init.into_iter().map(status).collect::<Vec<_>>(),
        "containerStatuses": app.into_iter().map(status).collect::<Vec<_>>(),
    })
}
