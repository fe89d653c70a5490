//! Names that Kubernetes and AWS take.

/// In characters: the longest name of an object, and the longest of an Auto Scaling group
/// (`CreateAutoScalingGroup`, Amazon EC2 Auto Scaling API Reference).
const LONGEST: usize = 253;
const LONGEST_GROUP: usize = 255;
/// In characters: the longest value of a label.
const LONGEST_LABEL: usize = 63;

/// A name for any autoscaler's group; Kubernetes' own rule for names is [`object()`].
///
/// # Errors
/// Says what is wrong with it.
pub fn group(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a name has at least one character".to_owned()),
        long if long.chars().count() > LONGEST_GROUP => {
            Err(format!("a name has at most {LONGEST_GROUP} characters"))
        }
        odd if odd.contains(char::is_control) => Err("a name has no control characters".to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// The name of an object (Kubernetes: "DNS Subdomain Names").
///
/// # Errors
/// Says what it has to look like.
pub fn object(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= LONGEST && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "the name of an object has at most {LONGEST} lower case letters, digits, - and ., and each part between dots \
         begins and ends with a letter or digit"
    ))
}

/// The value of a label that is not empty, as the type of an instance is.
///
/// # Errors
/// Says what it has to look like.
pub fn label(text: &str) -> Result<String, String> {
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() <= LONGEST_LABEL
        && text.chars().all(inner)
        && end(text.chars().next())
        && end(text.chars().next_back())
    {
        return Ok(text.to_owned());
    }
    Err(format!(
        "an instance type has 1 to {LONGEST_LABEL} letters, digits, -, _ and ., and begins and ends with a letter or digit"
    ))
}

/// The name of an object that is closest to a text of a label's characters which begins with a letter or digit.
pub fn derived(text: &str) -> String {
    let lower = text.to_ascii_lowercase().replace('_', "-");
    let parts: Vec<&str> =
        lower.split('.').map(|part| part.trim_matches('-')).filter(|part| !part.is_empty()).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_name_is_a_name_whatever_the_label() {
        for (label, name) in [
            ("g6.12xlarge", "kerf-g6.12xlarge"),
            ("Standard_NC24ads_A100_v4", "kerf-standard-nc24ads-a100-v4"),
            ("a..b", "kerf-a.b"),
            ("a_.-b", "kerf-a.b"),
            ("A", "kerf-a"),
        ] {
            assert_eq!(derived(&format!("kerf-{}", super::label(label).unwrap())), name);
            assert_eq!(object(name), Ok(name.to_owned()));
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "Bad Name!", "a_b", "-a", "a-", "a..b", ".", "é", &"a".repeat(254)] {
            assert!(object(text).is_err(), "{text}");
        }
        for text in ["", "a b", "_a", "a.", "é", &"a".repeat(64)] {
            assert!(label(text).is_err(), "{text}");
        }
        for text in ["", "a\nb", &"a".repeat(256)] {
            assert!(group(text).is_err(), "{text:?}");
        }
        assert_eq!(group("Bad Name!"), Ok("Bad Name!".to_owned()));
    }
}
