//! Arguments and answers of filter, prioritize and predicates.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::bounded::{self, MAX_NODES};
use super::node_name::{self, Name};
use super::pod;
use super::unreadable::Unreadable;

/// `ExtenderArgs`: the body of filter, prioritize and predicates.
#[derive(Debug, Deserialize)]
pub struct Args<'a> {
    /// The pod to place, not parsed yet.
    #[serde(rename = "Pod", alias = "pod", borrow)]
    pub pod: &'a RawValue,
    /// Candidates as whole objects (`nodeCacheCapable: false`).
    #[serde(rename = "Nodes", alias = "nodes", borrow, default)]
    pub nodes: Option<Nodes<'a>>,
    /// Candidates by name (`nodeCacheCapable: true`).
    #[serde(
        rename = "NodeNames",
        alias = "nodenames",
        alias = "nodeNames",
        borrow,
        default,
        deserialize_with = "bounded::list::<_, _, MAX_NODES>"
    )]
    pub node_names: Option<Vec<Name<'a>>>,
}

/// A `NodeList` whose items are returned unchanged.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Nodes<'a> {
    #[serde(borrow, default, deserialize_with = "items")]
    pub items: Vec<&'a RawValue>,
}

fn items<'de: 'a, 'a, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<&'a RawValue>, D::Error> {
    Ok(bounded::list::<_, &'de RawValue, MAX_NODES>(deserializer)?.unwrap_or_default())
}

#[derive(Debug)]
pub enum Candidates<'a> {
    Names(Vec<Name<'a>>),
    /// Names and objects.
    Objects(Vec<(Cow<'a, str>, &'a RawValue)>),
}

impl<'a> Args<'a> {
    pub fn parse(body: &'a [u8]) -> Result<(Pod, Candidates<'a>), Unreadable> {
        serde_json::from_slice::<Self>(body).map_err(|error| Unreadable::json(&error))?.split()
    }

    /// Splits the body into pod and candidates. Names win where both are given, unless their list is empty; without
    /// either there are no candidates.
    fn split(self) -> Result<(Pod, Candidates<'a>), Unreadable> {
        let pod = pod::read(self.pod)?;
        let nodes = self.nodes.filter(|nodes| !nodes.items.is_empty() || self.node_names.is_none());
        let candidates = match (self.node_names, nodes) {
            (Some(names), None) => Candidates::Names(names),
            (Some(names), Some(_)) if !names.is_empty() => Candidates::Names(names),
            (_, Some(nodes)) => Candidates::Objects(
                nodes
                    .items
                    .into_iter()
                    .map(|raw| {
                        let name = node_name::of(raw).ok_or(Unreadable::NamelessNode)?;
                        Ok((name, raw))
                    })
                    .collect::<Result<_, Unreadable>>()?,
            ),
            (None, None) => Candidates::Names(Vec::new()),
        };
        Ok((pod, candidates))
    }
}

impl<'a> Candidates<'a> {
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        match self {
            Self::Names(names) => names.len(),
            Self::Objects(objects) => objects.len(),
        }
    }

    /// In the order given.
    pub fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Names(names) => Box::new(names.iter().map(|name| name.0.as_ref())),
            Self::Objects(objects) => Box::new(objects.iter().map(|(name, _)| name.as_ref())),
        }
    }

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

/// `HostPriority`: an item of prioritize's answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HostPriority<'a> {
    pub host: &'a str,
    /// 0 (worst) to 10 (best).
    pub score: i64,
}
