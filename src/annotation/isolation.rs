//! `<D>/gpu-isolation` on a Pod: how each container's share is enforced, by container name. The plugin writes it with
//! its confirmation. Containers with whole physical cards are not in it: they share with no other container.
//!
//! ```
//! # use kerf::annotation::isolation::{decode, encode};
//! # use kerf::ids::ContainerName;
//! let levels = decode(r#"{"main":"limiter","side":"none"}"#).unwrap();
//! assert_eq!(levels[&ContainerName::from("main")], kerf::isolation::Isolation::Limiter);
//! assert_eq!(encode(&levels), r#"{"main":"limiter","side":"none"}"#);
//! ```

use std::collections::BTreeMap;

use super::unreadable::{Unreadable, bounded, malformed};
use crate::ids::ContainerName;
use crate::isolation::Isolation;

pub type Levels = BTreeMap<ContainerName, Isolation>;

pub fn encode(levels: &Levels) -> String {
    let words: BTreeMap<&str, &str> = levels.iter().map(|(name, level)| (name.as_str(), level.as_str())).collect();
    // strings only: JSON can hold all of it
    serde_json::to_string(&words).unwrap_or_default()
}

/// # Errors
/// [`Unreadable`]; no part of a bad value is used.
pub fn decode(text: &str) -> Result<Levels, Unreadable> {
    let words: BTreeMap<String, String> = serde_json::from_str(bounded(text)?).map_err(|e| malformed(&e))?;
    let level = |(name, word): (String, String)| {
        let level = word.parse().map_err(|_| Unreadable::Invalid("a level of isolation that has no name"))?;
        Ok((name.as_str().into(), level))
    };
    words.into_iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_have_a_named_answer() {
        assert_eq!(decode("{}"), Ok(Levels::new()));
        assert!(matches!(decode("x"), Err(Unreadable::Malformed(_))));
        assert!(matches!(decode(r#"{"main":7}"#), Err(Unreadable::Malformed(_))));
        assert!(matches!(decode(r#"{"main":"strong"}"#), Err(Unreadable::Invalid(_))));
        assert_eq!(decode(&"x".repeat(10 << 20)), Err(Unreadable::TooLong));
    }
}
