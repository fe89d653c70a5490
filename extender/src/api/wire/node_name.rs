//! The name of a Node, found without reading the rest of it.
//!
//! A Node is 10 KiB or more, and filter needs one word near the beginning. The syntax was checked when the body was
//! read, so stopping early loses nothing.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A node's name, borrowed from the body where it has no escapes. (serde does not borrow the items of a list of
/// `Cow` by itself.)
#[derive(Debug, Deserialize)]
pub struct Name<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// `metadata.name` of an object; `None` where it has none.
pub(super) fn of(object: &RawValue) -> Option<Cow<'_, str>> {
    let mut found = None;
    let seek = Seek { path: &["metadata", "name"], found: &mut found };
    // an error is how the search ends early
    let _ = seek.deserialize(&mut serde_json::Deserializer::from_str(object.get()));
    found
}

/// Finds the string at a path of keys.
struct Seek<'f, 'de> {
    path: &'f [&'f str],
    found: &'f mut Option<Cow<'de, str>>,
}

impl<'de> DeserializeSeed<'de> for Seek<'_, 'de> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((key, rest)) = self.path.split_first() else { return Ok(()) };
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if name.0 != *key {
                map.next_value::<IgnoredAny>()?;
            } else if rest.is_empty() {
                *self.found = Some(map.next_value::<Name<'de>>()?.0);
                return Err(A::Error::custom("found"));
            } else {
                map.next_value_seed(Seek { path: rest, found: self.found })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_wherever_it_stands_and_only_there() {
        for (object, name) in [
            (r#"{"metadata":{"name":"a","labels":{}},"status":{}}"#, Some("a")),
            (r#"{"kind":"Node","metadata":{"labels":{"name":"no"},"name":"a\u00e4"}}"#, Some("a\u{e4}")),
            (r#"{"spec":{"name":"no"},"metadata":{}}"#, None),
            (r#"{"metadata":{"name":7}}"#, None),
            (r#"{"metadata":"a"}"#, None),
            ("[]", None),
        ] {
            let raw: &RawValue = serde_json::from_str(object).unwrap();
            assert_eq!(of(raw).as_deref(), name, "{object}");
        }
    }
}
