//! Failures of calls to the API server. The text of a failure stays the same as long as its cause does.

use std::time::Duration;

/// Why a call to the API server failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It answered with an error status.
    #[error("{code} {reason}")]
    Status {
        /// The HTTP status.
        code: u16,
        /// `reason` of the Status, such as `Forbidden`.
        reason: String,
    },
    /// It did not answer, or sent nothing more, within this time.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// It cannot be reached, or the answer broke off; the text of the innermost error.
    #[error("cannot be reached ({0})")]
    Unreachable(String),
    /// The answer cannot be parsed.
    #[error("answer cannot be read ({0})")]
    Unreadable(String),
}

impl Failure {
    /// Whether it is a refusal: 401 or 403.
    pub fn refused(&self) -> bool {
        matches!(self, Self::Status { code: 401 | 403, .. })
    }

    /// Whether it may pass without a change of the request: the same request may be sent again.
    pub(super) fn passing(&self) -> bool {
        match self {
            Self::Status { code, .. } => matches!(code, 401 | 403 | 429 | 500 | 502 | 503),
            Self::Silent(_) | Self::Unreachable(_) => true,
            Self::Unreadable(_) => false,
        }
    }
}

impl From<&kube::Error> for Failure {
    fn from(error: &kube::Error) -> Self {
        match error {
            // the client's error for an event that it cannot parse
            kube::Error::Api(status) if status.code == 0 => Self::Unreadable(status.message.clone()),
            kube::Error::Api(status) => Self::Status { code: status.code, reason: status.reason.clone() },
            kube::Error::SerdeError(error) => Self::Unreadable(error.to_string()),
            other => {
                let mut deepest: &dyn std::error::Error = other;
                while let Some(source) = deepest.source() {
                    deepest = source;
                }
                Self::Unreachable(deepest.to_string())
            }
        }
    }
}
