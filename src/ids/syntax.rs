//! The syntax of names that an API server accepts. Any other text is not put into a URL or a log.

/// The longest name of a namespace or of a container, in bytes (DNS-1123 label).
pub const LABEL_MAX: usize = 63;
/// The longest name of a pod or of a node, in bytes (DNS-1123 subdomain).
pub const SUBDOMAIN_MAX: usize = 253;
/// The longest uid that is accepted, in bytes. Those of an API server have 36.
pub const UID_MAX: usize = 64;

/// Whether the text is a DNS-1123 label: names of namespaces and containers
/// (`k8s.io/apimachinery/pkg/api/validate/content/dns.go`).
pub fn is_label(text: &str) -> bool {
    text.len() <= LABEL_MAX && part(text)
}

/// Whether the text is a DNS-1123 subdomain: names of pods and nodes. Its parts may be longer than a label, as there.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN_MAX && text.split('.').all(part)
}

/// Whether the text may be a uid: letters, digits and hyphens. API servers make UUIDs, but kerf does not rely on it.
pub fn is_uid(text: &str) -> bool {
    (1..=UID_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn part(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes.iter().all(|byte| plain(*byte) || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_an_api_server_accepts() {
        let long = |length: usize| "a".repeat(length);
        for name in ["a", "0", "a-b", "a--b", "0a9", &long(63)] {
            assert!(is_label(name) && is_subdomain(name), "{name}");
        }
        for name in ["a.b", "node-1.example.com", &long(253), &format!("{}.{}", long(100), long(100))] {
            assert!(!is_label(name) && is_subdomain(name), "{name}");
        }
        let hostile = [
            "",
            ".",
            "..",
            "-",
            "-a",
            "a-",
            ".a",
            "a.",
            "a..b",
            "A",
            "a_b",
            "a/b",
            "x/log?",
            "?limit=500",
            "a%2fb",
            "a b",
            "a\0",
            "a\n",
            "\u{e4}",
            "\u{430}",
            "a#b",
            &long(254),
        ];
        for name in hostile {
            assert!(!is_label(name) && !is_subdomain(name), "{name:?}");
        }
    }

    #[test]
    fn a_uid_is_short_and_plain() {
        for uid in ["1", "6b2f9a3c-8f1e-4c55-9d0b-0a1b2c3d4e5f", "6B2F", &"f".repeat(64)] {
            assert!(is_uid(uid), "{uid}");
        }
        for uid in ["", "a b", "a/b", "..", "a\0", "\u{e4}", &"f".repeat(65)] {
            assert!(!is_uid(uid), "{uid:?}");
        }
    }
}
