//! The verbs that kube-scheduler calls, and how a call ends.

kerf::words! {
    /// A verb of the extender.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Verb {
        /// Which candidates can take the pod.
        Filter = "filter",
        /// How well each candidate suits the pod.
        Prioritize = "prioritize",
        /// Commits the pod to GPUs of the chosen node.
        Bind = "bind",
        /// Which pods to evict for the pod.
        Preempt = "preempt",
        /// Which nodes could take the pod, also nodes that do not exist yet.
        Simulate = "simulate",
        /// gpu-admission's filter, which places the pod as well.
        Predicates = "predicates",
    }
}

kerf::words! {
    /// How a call ended, for `kerf_extender_requests_total`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Outcome {
        Ok = "ok",
        /// The pod asks for no GPU.
        NoGpu = "no-gpu-pod",
        Invalid = "invalid",
        /// No candidate fits.
        NoNode = "no-node",
        /// No eviction helps, on any candidate.
        Nowhere = "nowhere",
        Error = "error",
    }
}

kerf::words! {
    /// How a bind ended, for `kerf_extender_binds_total`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum BindOutcome {
        Bound = "bound",
        /// The binding had been written before.
        Already = "already-bound",
        /// The node has no room any more.
        Unfit = "no-longer-fits",
        /// The API server has refused, or the pod may not be bound to that node, or not by kerf.
        Refused = "refused",
        /// The API server has not answered.
        Unknown = "unknown",
        Invalid = "invalid",
        /// The pod could not be read, or bind broke off.
        Failed = "failed",
    }
}

impl Verb {
    /// Its HTTP path.
    pub fn route(self) -> String {
        format!("/scheduler/{}", self.as_str())
    }

    /// Whether it is served only with `--legacy`.
    pub fn is_legacy(self) -> bool {
        self == Self::Predicates
    }
}
