//! The verbs that kube-scheduler calls, and how a call ends.

/// A verb of the extender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Which candidates can take the pod.
    Filter,
    /// How well each candidate suits the pod.
    Prioritize,
    /// Commits the pod to GPUs of the chosen node.
    Bind,
    /// Which pods to evict for the pod.
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
    Invalid,
    /// No candidate fits.
    NoNode,
    /// No eviction helps, on any candidate.
    Nowhere,
    Error,
}

impl Verb {
    /// All verbs, in the order of their declaration.
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

    /// Its HTTP path.
    pub fn route(self) -> String {
        format!("/scheduler/{}", self.as_str())
    }

    /// Whether it is served only with `--legacy`.
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
    /// The binding had been written before.
    Already,
    /// The node has no room any more.
    Unfit,
    /// The API server has refused, or the pod may not be bound to that node, or not by kerf.
    Refused,
    /// The API server has not answered.
    Unknown,
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
