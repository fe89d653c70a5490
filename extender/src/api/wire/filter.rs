//! The answers of filter, prioritize and predicates.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::args::{Candidates, Nodes};

/// `ExtenderFilterResult`
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FilterResult<'a> {
    /// Nodes that fit, where objects were sent.
    pub nodes: Option<Nodes<'a>>,
    /// Nodes that fit, where names were sent.
    pub node_names: Option<Vec<&'a str>>,
    /// Nodes that do not fit, but could after evictions; with reasons.
    pub failed_nodes: BTreeMap<&'a str, Cow<'a, str>>,
    /// Nodes that evictions cannot help; with reasons.
    pub failed_and_unresolvable_nodes: BTreeMap<&'a str, Cow<'a, str>>,
    /// Empty where the call did not fail.
    pub error: String,
}

impl Candidates<'_> {
    /// An answer with the candidates for whose position and name `keeps` is true, in the form in which they came.
    pub fn keep(&self, keeps: impl Fn(usize, &str) -> bool) -> FilterResult<'_> {
        let mut result = FilterResult::default();
        match self {
            Self::Names(names) => {
                let names = names.iter().map(|name| name.0.as_ref()).enumerate();
                result.node_names =
                    Some(names.filter(|(at, name)| keeps(*at, name)).map(|(_, name)| name).collect());
            }
            Self::Objects(objects) => {
                let kept =
                    objects.iter().enumerate().filter(|(at, (name, _))| keeps(*at, name)).map(|(_, (_, raw))| *raw);
                result.nodes = Some(Nodes { items: kept.collect() });
            }
        }
        result
    }
}

impl FilterResult<'_> {
    pub fn failed(error: String) -> Self {
        Self { error, ..Self::default() }
    }
}

/// `HostPriority`: an item of prioritize's answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostPriority<'a> {
    pub host: &'a str,
    /// 0 (worst) to 10 (best).
    pub score: i64,
}
