//! What went wrong at the API server, in words that stay the same as long as it does.

use std::fmt;
use std::time::Duration;

/// Why a call to the API server came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It answered with a status that is no success.
    Status {
        /// The HTTP status.
        code: u16,
        /// Kubernetes' word for it.
        reason: String,
    },
    /// It did not answer in time, or fell silent.
    Silent(Duration),
    /// There is no way to it, or the answer broke off; the words of the innermost error.
    Unreachable(String),
    /// The answer cannot be read.
    Unreadable(String),
}

impl Failure {
    /// Whether it knows who asks, or what is asked for, and says no: 401 or 403.
    pub fn refused(&self) -> bool {
        matches!(self, Self::Status { code: 401 | 403, .. })
    }

    /// Whether it says nothing of what was asked: the same may be asked again.
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
            // what the client makes of an event that it cannot read
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { code, reason } => write!(f, "{code} {reason}"),
            Self::Silent(time) => write!(f, "no answer within {} s", time.as_secs_f64()),
            Self::Unreachable(error) => write!(f, "cannot be reached ({error})"),
            Self::Unreadable(error) => write!(f, "answer cannot be read ({error})"),
        }
    }
}
