//! The file of a workload: Pods, and what makes Pods, in YAML or JSON, several documents or a List.

use std::path::Path;

use anyhow::{anyhow, bail, ensure};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::source;

/// What a document must be.
const KINDS: &str = "Pod, Deployment, StatefulSet, ReplicaSet, ReplicationController, Job or CronJob";

/// Pods of one kind.
pub struct Workload {
    /// As `Deployment team/web`.
    pub name: String,
    /// How many run at the same time.
    pub pods: u64,
    /// Each of them.
    pub pod: Pod,
    /// Whether the file has the pod itself.
    pub is_pod: bool,
}

#[derive(Default, Deserialize)]
struct Head {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    items: Option<Vec<Value>>,
}

/// The workloads of a file, and sentences about the documents that make no pods.
///
/// # Errors
/// Where the file has none, or one that cannot be read; with its place.
pub fn workloads(path: &Path) -> anyhow::Result<(Vec<Workload>, Vec<String>)> {
    let name = path.display().to_string();
    let text = source::text(path)?;
    let (mut found, mut notes) = (Vec::new(), Vec::new());
    for (line, document) in documents(&text) {
        let at = Place { file: &name, line };
        let Some(head) = at.head(document)? else { continue };
        match head.items {
            Some(items) if head.kind.as_deref().is_some_and(|kind| kind.ends_with("List")) => {
                for item in &items {
                    let kind = item["kind"].as_str().unwrap_or_default();
                    let read = Read::Value(item);
                    add(kind, &read, &at, &mut found, &mut notes)?;
                }
            }
            _ => add(head.kind.as_deref().unwrap_or_default(), &Read::Text(document), &at, &mut found, &mut notes)?,
        }
    }
    ensure!(!found.is_empty(), "{name}: holds no workload: expected a {KINDS}");
    Ok((found, notes))
}

/// The documents of a file, each with the lines before it.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let (mut documents, mut begin, mut first, mut at) = (Vec::new(), 0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mark = line.trim_end();
        if mark == "---" || mark.starts_with("--- ") {
            documents.push((first, text.get(begin..at).unwrap_or_default()));
            (begin, first) = (at + line.len().min(4), number + 1);
            if mark.len() > 3 {
                first = number;
            }
        }
        at += line.len();
    }
    documents.push((first, text.get(begin.min(text.len())..).unwrap_or_default()));
    documents
}

/// A document as text, or one of a List.
enum Read<'a> {
    Text(&'a str),
    Value(&'a Value),
}

struct Place<'a> {
    file: &'a str,
    /// Lines before the document.
    line: usize,
}

impl Place<'_> {
    /// `None` for a document without anything in it.
    fn head(&self, document: &str) -> anyhow::Result<Option<Head>> {
        let has_text = document.lines().any(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#')
        });
        if !has_text {
            return Ok(None);
        }
        serde_saphyr::from_str(document).map(Some).map_err(|error| self.wrong("a workload", &error))
    }

    fn wrong(&self, what: &str, error: &serde_saphyr::Error) -> anyhow::Error {
        let at =
            error.location().map(|at| format!(": line {}, column {}", self.line as u64 + at.line(), at.column()));
        let words = error.without_snippet().to_string();
        anyhow!("{}{}: not {what}: {}", self.file, at.unwrap_or_default(), source::plain(&words))
    }

    fn parse<T: DeserializeOwned>(&self, kind: &str, read: &Read<'_>) -> anyhow::Result<T> {
        let what = format!("a {kind}");
        match read {
            Read::Text(text) => serde_saphyr::from_str(text).map_err(|error| self.wrong(&what, &error)),
            Read::Value(value) => {
                T::deserialize(*value).map_err(|error| anyhow!("{}: not {what}: {error}", self.file))
            }
        }
    }
}

fn add(
    kind: &str,
    read: &Read<'_>,
    at: &Place<'_>,
    found: &mut Vec<Workload>,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let count = |number: Option<i32>| u64::try_from(number.unwrap_or(1)).unwrap_or_default();
    let (metadata, pods, template) = match kind {
        "Pod" => {
            let pod: Pod = at.parse(kind, read)?;
            let template = PodTemplateSpec { metadata: Some(pod.metadata.clone()), spec: pod.spec.clone() };
            (pod.metadata, 1, Some(template))
        }
        "Deployment" => {
            let own: Deployment = at.parse(kind, read)?;
            (
                own.metadata,
                count(own.spec.as_ref().and_then(|spec| spec.replicas)),
                own.spec.map(|spec| spec.template),
            )
        }
        "StatefulSet" => {
            let own: StatefulSet = at.parse(kind, read)?;
            let pods = count(own.spec.as_ref().and_then(|spec| spec.replicas));
            (own.metadata, pods, own.spec.map(|spec| spec.template))
        }
        "ReplicaSet" => {
            let own: ReplicaSet = at.parse(kind, read)?;
            let pods = count(own.spec.as_ref().and_then(|spec| spec.replicas));
            (own.metadata, pods, own.spec.and_then(|spec| spec.template))
        }
        "ReplicationController" => {
            let own: ReplicationController = at.parse(kind, read)?;
            let pods = count(own.spec.as_ref().and_then(|spec| spec.replicas));
            (own.metadata, pods, own.spec.and_then(|spec| spec.template))
        }
        "Job" => {
            let own: Job = at.parse(kind, read)?;
            (own.metadata, own.spec.as_ref().map_or(1, at_once), own.spec.map(|spec| spec.template))
        }
        "CronJob" => {
            let own: CronJob = at.parse(kind, read)?;
            let job = own.spec.and_then(|spec| spec.job_template.spec);
            (own.metadata, job.as_ref().map_or(1, at_once), job.map(|job| job.template))
        }
        "" => bail!("{}: a document without a kind: expected a {KINDS}", at.file),
        "DaemonSet" => bail!("{}: a DaemonSet has a pod on each node: plan its template as a Pod", at.file),
        other => {
            notes.push(format!("{}: {other}: not looked at, it is no {KINDS}", at.file));
            return Ok(());
        }
    };
    found.push(workload(kind, &metadata, pods, template, at)?);
    Ok(())
}

/// Pods of a Job that run at the same time.
fn at_once(job: &JobSpec) -> u64 {
    let number = |number: Option<i32>| number.and_then(|number| u64::try_from(number).ok());
    let parallel = number(job.parallelism).unwrap_or(1);
    number(job.completions).map_or(parallel, |completions| parallel.min(completions))
}

fn workload(
    kind: &str,
    metadata: &ObjectMeta,
    pods: u64,
    template: Option<PodTemplateSpec>,
    at: &Place<'_>,
) -> anyhow::Result<Workload> {
    let is_pod = kind == "Pod";
    let PodTemplateSpec { metadata: own, spec } = template.unwrap_or_default();
    // nothing at all reads as a Pod of which nothing is known
    let has_containers = spec.as_ref().is_some_and(|spec| !spec.containers.is_empty());
    let place = if is_pod { "spec.containers" } else { "spec.template.spec.containers" };
    let place = if kind == "CronJob" { "spec.jobTemplate.spec.template.spec.containers" } else { place };
    ensure!(has_containers, "{}: not a {kind}: {place} is missing or empty", at.file);
    let name = metadata.name.clone().or_else(|| metadata.generate_name.clone()).unwrap_or_default();
    let namespace = metadata.namespace.clone();
    let shown = namespace.as_ref().map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}"));
    let own = ObjectMeta { name: Some(name), namespace, ..own.unwrap_or_default() };
    let pod = Pod { metadata: own, spec, status: None };
    Ok(Workload { name: format!("{kind} {shown}"), pods, pod, is_pod })
}
