//! Requests that failed, in words that say what to do.

use std::time::Duration;

/// Why a request to the API server failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// 401
    Unknown,
    /// 403, with what the API server says.
    Forbidden(String),
    /// 410: the rest of a list can no longer be had.
    Expired,
    /// Another status, with what the API server says.
    Status(u16, String),
    Silent(Duration),
    Unreachable(String),
}

/// How one gets the rights.
const GRANT: &str = "an administrator grants it by the ClusterRole kerf-viewer (manifests/components/viewer, of the chart: viewer): \
                     kubectl create clusterrolebinding NAME --clusterrole=kerf-viewer --user=USER";

impl From<kube::Error> for Refused {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::Unknown,
                403 => Self::Forbidden(status.message.clone()),
                410 => Self::Expired,
                code => Self::Status(code, status.message.clone()),
            },
            other => {
                let mut deepest: &dyn std::error::Error = &other;
                while let Some(source) = deepest.source() {
                    deepest = source;
                }
                Self::Unreachable(deepest.to_string())
            }
        }
    }
}

impl Refused {
    /// A sentence about a request of `server` for `what`.
    pub fn sentence(&self, server: &str, what: &str) -> String {
        match self {
            Self::Unknown => format!(
                "{server} does not accept these credentials (401 Unauthorized): log in again, or choose another context \
                 with --context"
            ),
            Self::Forbidden(message) => format!("no right to {what} ({message}): {GRANT}"),
            Self::Expired => format!("{server}: the list changed faster than it could be read ({what}): try again"),
            Self::Status(code, message) => format!("{server}: {what}: {code} {message}"),
            Self::Silent(limit) => format!(
                "{server} has not answered within {} s ({what}): is it the right cluster (--context)? Otherwise allow it \
                 more time with --request-timeout",
                limit.as_secs()
            ),
            Self::Unreachable(cause) => format!(
                "{server} cannot be reached ({cause}): is it the right cluster (--context, or kubectl config get-contexts), \
                 and does it run?"
            ),
        }
    }

    /// In few words, for a note.
    pub fn words(&self) -> String {
        match self {
            Self::Unknown => "401 Unauthorized".to_owned(),
            Self::Forbidden(_) => {
                "no right to get pods/proxy in kerf's namespace, which its Role kerf-viewer gives".to_owned()
            }
            Self::Expired => "410 Expired".to_owned(),
            Self::Status(code, message) => format!("{code} {message}"),
            Self::Silent(limit) => format!("no answer within {} s", limit.as_secs()),
            Self::Unreachable(cause) => cause.clone(),
        }
    }
}
