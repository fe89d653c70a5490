//! The common beginning of every call: whether the extender is ready, what the body has, whether its pod asks for GPUs,
//! and under which policy.

use std::sync::{Arc, Once};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::Pod;
use kerf::ids::PodRef;
use kerf::k8s;
use kerf::policy::Policy;
use kerf::request::{PodRequest, RequestError};
use kerf_runtime::serving::Closer;
use serde::Serialize;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::wire::Unreadable;
use crate::app::App;
use crate::bodies::{Room, Unread};
use crate::lease::NotLeading;
use crate::planning::{Place, PlanningError, TooMuch};
use crate::verb::{Outcome, Verb};

/// A verb's own part. A new verb has to answer every [`Early`].
pub(super) trait Handler: 'static {
    const VERB: Verb;
    /// What an early answer needs of the call, beside the pod.
    type Args<'a>;

    /// The answer to a call that needs no look at nodes.
    fn early(early: Early<Self::Args<'_>>) -> (Outcome, Response);

    /// The answer to a call that has been read.
    fn answer(call: Arc<Call>) -> impl Future<Output = Result<Response, CallError>> + Send;
}

/// Why a call is answered before any node is looked at.
pub(super) enum Early<A> {
    /// No answer is possible now; the scheduler tries again.
    Failed(CallError),
    /// The pod asks for no GPU: any node will do.
    NoGpu(A),
    /// The pod breaks a rule, so it fits nowhere.
    Invalid(A, RequestError),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The watches have not shown everything yet, when every card looks free, or their news is too old.
    #[error("extender is not ready: {}", .unmet.join(", "))]
    NotReady { unmet: Vec<String> },
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Planning(#[from] PlanningError),
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
}

impl CallError {
    /// For answers without a field for errors.
    fn status(&self) -> StatusCode {
        match self {
            Self::Unread(Unread::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unread(Unread::Slow) => StatusCode::REQUEST_TIMEOUT,
            Self::Unread(Unread::BrokenOff) | Self::Unreadable(_) => StatusCode::BAD_REQUEST,
            Self::NotReady { .. } | Self::Unread(Unread::Full) | Self::Planning(_) | Self::NotLeading(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The answer of a verb whose own has no field for errors: kube-scheduler takes any other status than 200 for an error
    /// of the extender.
    pub fn answer(&self) -> Response {
        (self.status(), self.to_string()).into_response()
    }
}

/// A call whose body has been read.
pub(super) struct Call {
    pub app: Arc<App>,
    pub body: Bytes,
    /// For the body, until the call has been answered.
    _room: Arc<Room>,
    span: Span,
    /// Adds the pod's name to the span once: a call may be evaluated several times.
    named: Once,
}

pub(super) struct Asked<A> {
    /// The pod as the scheduler has it.
    pub pod: Pod,
    pub asking: PodRequest,
    pub policy: Policy,
    pub args: A,
}

pub(super) async fn serve<H: Handler>(State(app): State<Arc<App>>, mut request: Request) -> Response {
    let _timer = app.metrics.timer(H::VERB);
    let span = tracing::info_span!("call", verb = H::VERB.as_str(), pod = Empty, uid = Empty);
    let within = span.clone();
    let answer = async {
        let unmet = app.readiness.unmet();
        if !unmet.is_empty() {
            return Err(CallError::NotReady { unmet });
        }
        let closer = request.extensions_mut().remove::<Closer>().unwrap_or_default();
        let (body, room) = app.bodies.read(request.into_body(), closer).await?;
        // the connection is looked at in between: of a caller that has gone meanwhile the call ends here
        tokio::task::yield_now().await;
        let call = Call { app: app.clone(), body, _room: room.clone(), span, named: Once::new() };
        let answer = H::answer(Arc::new(call)).await?;
        Ok(room.send(answer))
    };
    async { answer.await.unwrap_or_else(|error| early::<H>(&app, Early::Failed(error))) }.instrument(within).await
}

impl Call {
    /// Reads the body with `parse`. Where no node has to be looked at, `Err` has the answer.
    pub fn asked<'a, H: Handler>(
        &'a self,
        parse: impl FnOnce(&'a [u8]) -> Result<(Pod, H::Args<'a>), Unreadable>,
    ) -> Result<Asked<H::Args<'a>>, Box<Response>> {
        let answered = |why| Box::new(early::<H>(&self.app, why));
        let (pod, args) = parse(&self.body).map_err(|error| answered(Early::Failed(error.into())))?;
        let (uid, name) = (pod.metadata.uid.as_deref().unwrap_or_default(), name(&pod));
        self.concerns(&name, uid);
        match k8s::request(&pod, &self.app.keys) {
            Ok(Some(request)) => {
                let policy = request.policy_or(self.app.policy);
                let asking = PodRequest { uid: uid.into(), name, request: Arc::new(request) };
                Ok(Asked { pod, asking, policy, args })
            }
            Ok(None) => Err(answered(Early::NoGpu(args))),
            Err(error) => Err(answered(Early::Invalid(args, error))),
        }
    }

    /// What `evaluate` finds, here or in a thread of its own: it is called again where the first place was the wrong one.
    pub async fn evaluated<T: Send + 'static>(
        self: &Arc<Self>,
        evaluate: impl Fn(&Self, Place) -> Result<T, TooMuch> + Send + 'static,
    ) -> Result<T, PlanningError> {
        let own = self.clone();
        self.app.planning.run_here_or_there(self.body.len(), move |place| evaluate(&own, place)).await
    }

    /// Adds the pod's name to the logs.
    pub fn concerns(&self, pod: &PodRef, uid: &str) {
        self.named.call_once(|| {
            self.span.record("pod", tracing::field::display(pod)).record("uid", uid);
        });
    }
}

fn early<H: Handler>(app: &App, early: Early<H::Args<'_>>) -> Response {
    let broken = match &early {
        Early::Failed(error) => {
            tracing::warn!(verb = H::VERB.as_str(), error = error.to_string(), "call failed");
            None
        }
        Early::Invalid(_, error) => Some(error.code()),
        Early::NoGpu(_) => None,
    };
    let (outcome, response) = H::early(early);
    if let (Some(rule), Outcome::Invalid) = (broken, outcome) {
        app.metrics.invalid.with_label_values(&[rule.as_str()]).inc();
    }
    app.metrics.answered(H::VERB, outcome);
    response
}

fn name(pod: &Pod) -> PodRef {
    let metadata = &pod.metadata;
    PodRef::new(metadata.namespace.as_deref().unwrap_or("default"), metadata.name.as_deref().unwrap_or_default())
}

pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
