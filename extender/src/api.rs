//! What kube-scheduler calls: one handler for each verb, all under `/scheduler/`.
//!
//! Answers are 200 with `Error` inside, as the contract requires (`k8s.io/kube-scheduler/extender/v1`). A pod that
//! does not fit is never an error. Filter and prioritize change nothing but the intents, which only steer later
//! choices.

mod bind;
mod filter;
mod judge;
mod lookup;
mod predicates;
mod preempt;
mod prepare;
mod prioritize;
mod ranking;
mod simulate;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::app::App;
use crate::verb::Verb;
use bind::Bind;
use filter::Filter;
use predicates::Predicates;
use preempt::Preempt;
use prepare::serve;
use prioritize::Prioritize;
use simulate::Simulate;

/// With `legacy`, also gpu-admission's route.
pub(crate) fn router(app: Arc<App>, legacy: bool) -> Router {
    let handler = |verb| match verb {
        Verb::Filter => post(serve::<Filter>),
        Verb::Prioritize => post(serve::<Prioritize>),
        Verb::Bind => post(serve::<Bind>),
        Verb::Preempt => post(serve::<Preempt>),
        Verb::Simulate => post(serve::<Simulate>),
        Verb::Predicates => post(serve::<Predicates>),
    };
    let served = Verb::ALL.into_iter().filter(|verb| legacy || !verb.is_legacy());
    served.fold(Router::new(), |router, verb| router.route(&verb.route(), handler(verb))).with_state(app)
}
