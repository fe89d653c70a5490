//! The pod of a request, bounded by what an API server accepts; and names and uids from a caller, which are checked
//! before they are used: they go into URLs, logs and answers.

use k8s_openapi::api::core::v1::Pod;
use kerf::ids::syntax::{LABEL_MAX, SUBDOMAIN_MAX, UID_MAX, is_label, is_subdomain, is_uid};
use serde_json::value::RawValue;

use super::unreadable::Unreadable;

/// An API server accepts no larger request, so no pod is larger.
const MAX_BYTES: usize = 3 << 20;
/// More JSON objects than any pod has; each may take kilobytes once it is read.
const MAX_OBJECTS: usize = 20_000;
/// How many characters of an invalid name are shown.
const SHOWN: usize = 64;

#[derive(Clone, Copy)]
pub(super) enum Form {
    /// Names of namespaces and containers.
    Label,
    /// Names of pods and nodes.
    Subdomain,
    Uid,
}

impl Form {
    /// # Errors
    /// `Unreadable::Name` with the field.
    pub(super) fn check(self, field: &str, text: &str) -> Result<(), Unreadable> {
        let (holds, wanted) = match self {
            Self::Label => (is_label(text), format!("a DNS-1123 label of at most {LABEL_MAX} characters")),
            Self::Subdomain => {
                (is_subdomain(text), format!("a DNS-1123 subdomain of at most {SUBDOMAIN_MAX} characters"))
            }
            Self::Uid => (is_uid(text), format!("a uid of 1 to {UID_MAX} letters, digits and hyphens")),
        };
        let wrong = || Unreadable::Name { field: field.to_owned(), wanted, shown: shown(text) };
        if holds { Ok(()) } else { Err(wrong()) }
    }

    /// As `check`; accepts `None`, since a pod that has not been created has no name yet.
    fn check_given(self, field: &str, text: Option<&str>) -> Result<(), Unreadable> {
        text.filter(|text| !text.is_empty()).map_or(Ok(()), |text| self.check(field, text))
    }
}

/// The beginning of any text, on one line.
fn shown(text: &str) -> String {
    let end = text.char_indices().nth(SHOWN);
    let (start, dots) = end.map_or((text, ""), |(end, _)| (text.get(..end).unwrap_or_default(), "..."));
    format!("{start:?}{dots}")
}

/// Parses a pod, and checks its names.
pub(super) fn read(text: &RawValue) -> Result<Pod, Unreadable> {
    let text = text.get();
    let objects = text.bytes().filter(|byte| *byte == b'{').count();
    if text.len() > MAX_BYTES || objects > MAX_OBJECTS {
        return Err(Unreadable::LargePod);
    }
    let pod = serde_json::from_str(text).map_err(|error| Unreadable::json(&error))?;
    check(&pod)?;
    Ok(pod)
}

/// # Errors
/// `Unreadable::Name` with the field.
fn check(pod: &Pod) -> Result<(), Unreadable> {
    let metadata = &pod.metadata;
    Form::Subdomain.check_given("Pod.metadata.name", metadata.name.as_deref())?;
    Form::Label.check_given("Pod.metadata.namespace", metadata.namespace.as_deref())?;
    Form::Uid.check_given("Pod.metadata.uid", metadata.uid.as_deref())?;
    let Some(spec) = &pod.spec else { return Ok(()) };
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        Form::Label.check_given("a container's name in Pod.spec", Some(&container.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_shown_in_part_and_on_one_line() {
        let error = |text: &str| Form::Subdomain.check("PodName", text).unwrap_err().to_string();
        assert_eq!(
            error("?limit=500"),
            r#"PodName is not a DNS-1123 subdomain of at most 253 characters: "?limit=500""#
        );
        assert!(error("a\nb\0\u{202e}").ends_with(r#": "a\nb\0\u{202e}""#));
        let long = error(&"\u{e4}".repeat(100 << 20));
        assert!(long.ends_with("\u{e4}\"...") && long.chars().count() < 200, "{}", long.len());
    }
}
