//! Field and label selectors, as far as pods and nodes need them.

use serde_json::Value;

use super::failure::Failure;
use super::object;
use super::resource::Resource;

/// Which objects a list or a watch is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    namespace: Option<String>,
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
enum Term {
    Field { path: &'static [&'static str], value: String, equal: bool },
    Label { key: String, value: String, equal: bool },
    Labelled { key: String, present: bool },
}

impl Selector {
    pub(crate) fn parse(
        resource: Resource,
        namespace: Option<String>,
        fields: &str,
        labels: &str,
    ) -> Result<Self, Failure> {
        let mut terms = Vec::new();
        for part in fields.split(',').filter(|part| !part.is_empty()) {
            let (name, value, equal) = comparison(part)
                .ok_or_else(|| Failure::bad_request(format!("invalid field selector \"{part}\"")))?;
            let path = field(resource, name)
                .ok_or_else(|| Failure::bad_request(format!("field label not supported: {name}")))?;
            terms.push(Term::Field { path, value: value.to_owned(), equal });
        }
        if labels.contains(['(', '<', '>']) {
            return Err(Failure::bad_request("this stand-in serves equality-based label selectors only"));
        }
        for part in labels.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            terms.push(match comparison(part) {
                Some((key, value, equal)) => {
                    Term::Label { key: key.trim().to_owned(), value: value.trim().to_owned(), equal }
                }
                None => {
                    Term::Labelled { key: part.trim_start_matches('!').to_owned(), present: !part.starts_with('!') }
                }
            });
        }
        Ok(Self { namespace, terms })
    }

    pub(crate) fn matches(&self, value: &Value) -> bool {
        if self.namespace.as_deref().is_some_and(|namespace| namespace != object::namespace(value)) {
            return false;
        }
        self.terms.iter().all(|term| match term {
            Term::Field { path, value: wanted, equal } => (object::text(value, path) == wanted) == *equal,
            Term::Label { key, value: wanted, equal } => {
                let label = object::at(value, &["metadata", "labels", key]).and_then(Value::as_str);
                (label == Some(wanted.as_str())) == *equal
            }
            Term::Labelled { key, present } => {
                object::at(value, &["metadata", "labels", key]).is_some() == *present
            }
        })
    }
}

fn comparison(part: &str) -> Option<(&str, &str, bool)> {
    part.split_once("!=")
        .map(|(name, value)| (name, value, false))
        .or_else(|| part.split_once("==").map(|(name, value)| (name, value, true)))
        .or_else(|| part.split_once('=').map(|(name, value)| (name, value, true)))
}

fn field(resource: Resource, name: &str) -> Option<&'static [&'static str]> {
    match (resource, name) {
        (_, "metadata.name") => Some(&["metadata", "name"]),
        (_, "metadata.namespace") => Some(&["metadata", "namespace"]),
        (Resource::Pods, "spec.nodeName") => Some(&["spec", "nodeName"]),
        (Resource::Pods, "spec.schedulerName") => Some(&["spec", "schedulerName"]),
        (Resource::Pods, "status.phase") => Some(&["status", "phase"]),
        (Resource::Events, "involvedObject.name") => Some(&["involvedObject", "name"]),
        (Resource::Events, "involvedObject.uid") => Some(&["involvedObject", "uid"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods(fields: &str, labels: &str) -> Result<Selector, Failure> {
        Selector::parse(Resource::Pods, None, fields, labels)
    }

    #[test]
    fn fields_compare_and_combine() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let hit = |fields| pods(fields, "").expect("valid").matches(&pod);
        assert!(hit("spec.nodeName=n,status.phase!=Failed"));
        assert!(hit("metadata.name=a"));
        assert!(!hit("spec.nodeName!=n"));
        assert!(!hit("spec.nodeName="));
        assert!(pods("spec.hostname=x", "").is_err());
    }

    #[test]
    fn labels_compare_by_equality_and_set_based_ones_are_refused() {
        let pod = json!({"metadata": {"name": "a", "labels": {"app": "x"}}});
        let hit = |labels| pods("", labels).expect("valid").matches(&pod);
        assert!(hit("app=x") && hit("app") && hit("!other") && hit("app!=y"));
        assert!(!hit("app=y") && !hit("other") && !hit("!app"));
        assert!(pods("", "app in (x, y)").is_err());
    }
}
