//! The verbs that kube-scheduler calls, and how a call ends.

/// A verb of the extender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Which of the candidates can take the pod.
    Filter,
    /// How well each candidate suits the pod.
    Prioritize,
    /// Commits the pod to GPUs of the chosen node.
    Bind,
    /// Whom to evict for the pod.
    Preempt,
    /// gpu-admission's filter, which places the pod as well.
    Predicates,
}

/// How a call ended, for `kerf_extender_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// The pod asks for no GPU.
    NoGpu,
    /// The pod breaks a rule of its request.
    Invalid,
    /// No candidate was taken.
    NoNode,
    /// No eviction helps.
    Nowhere,
    Error,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 5] = [Self::Filter, Self::Prioritize, Self::Bind, Self::Preempt, Self::Predicates];

    /// The word used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Prioritize => "prioritize",
            Self::Bind => "bind",
            Self::Preempt => "preempt",
            Self::Predicates => "predicates",
        }
    }

    /// Where it is served.
    pub fn route(self) -> String {
        format!("/scheduler/{}", self.as_str())
    }

    /// Whether it is served with `--legacy` alone.
    pub fn is_legacy(self) -> bool {
        match self {
            Self::Filter | Self::Prioritize | Self::Bind | Self::Preempt => false,
            Self::Predicates => true,
        }
    }
}

impl Outcome {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoGpu => "no-gpu-pod",
            Self::Invalid => "invalid",
            Self::NoNode => "no-node",
            Self::Nowhere => "nowhere",
            Self::Error => "error",
        }
    }
}

/// How a bind ended, for `kerf_extender_binds_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BindOutcome {
    Bound,
    /// Had been written before.
    Already,
    /// The node has no room any more.
    Unfit,
    /// The API server has refused, or the pod may not be bound there, or by kerf.
    Refused,
    /// The API server has not said.
    Unknown,
    /// The pod breaks the contract.
    Invalid,
    /// The pod could not be read, or bind broke off.
    Failed,
}

impl BindOutcome {
    pub const ALL: [Self; 7] =
        [Self::Bound, Self::Already, Self::Unfit, Self::Refused, Self::Unknown, Self::Invalid, Self::Failed];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Already => "already-bound",
            Self::Unfit => "no-longer-fits",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }
}
