//! `simulate`: which candidates could take the pod, for autoscalers that ask about nodes they may add.
//!
//! Candidates come as whole Node objects. A node that the extender knows is taken as its ledger has it; of another the
//! cards are those of the object. Pods on their way are not looked at, all candidates that fit come back, and nothing is
//! remembered: what an autoscaler imagines has to change no choice.

use std::sync::Arc;

use axum::response::Response;
use kerf::k8s;
use kerf::ledger::NodeLedger;
use kerf::placement::Planner;
use kerf::unfit::Unfit;
use serde_json::value::RawValue;

use super::filter::{Filter, answer};
use super::prepare::{Call, CallError, Early, Handler, json};
use super::wire::{self, Args, Candidates};
use crate::app::App;
use crate::planning::{Place, TooMuch};
use crate::verb::{Outcome, Verb};

pub(super) struct Simulate;

impl Handler for Simulate {
    const VERB: Verb = Verb::Simulate;
    type Args<'a> = Candidates<'a>;

    fn early(early: Early<Candidates<'_>>) -> (Outcome, Response) {
        Filter::early(early)
    }

    async fn answer(call: Arc<Call>) -> Result<Response, CallError> {
        Ok(call.evaluated(evaluate).await?)
    }
}

fn evaluate(call: &Call, place: Place) -> Result<Response, TooMuch> {
    let app = &call.app;
    let asked = match call.asked::<Simulate>(Args::parse) {
        Ok(asked) => asked,
        Err(answered) => return Ok(*answered),
    };
    let request = &asked.asking.request;
    place.allows(request, app.policy, asked.args.len())?;
    let mut planner = Planner::default();
    let mut judge = |node: &str, object: Option<&RawValue>| {
        let ledger = match ledger(app, node, object) {
            Ok(ledger) => ledger,
            Err(unfit) => return (Some(unfit), false),
        };
        let Err(unfit) = planner.fit(&ledger, request, app.policy) else { return (None, false) };
        let resolvable = unfit.resolvable() && planner.fit(&ledger.without(|_| true), request, app.policy).is_ok();
        (Some(unfit), resolvable)
    };
    let (verdicts, resolvable): (Vec<Option<Unfit>>, Vec<bool>) = match &asked.args {
        Candidates::Names(names) => names.iter().map(|name| judge(&name.0, None)).unzip(),
        Candidates::Objects(objects) => objects.iter().map(|(name, object)| judge(name, Some(*object))).unzip(),
    };
    app.metrics.answered(Verb::Simulate, Outcome::Ok);
    Ok(json(&answer(&asked.args, &verdicts, request, |_| true, |at, _| resolvable.get(at) == Some(&true))))
}

/// The cards of a node, known or imagined.
fn ledger(app: &App, node: &str, object: Option<&RawValue>) -> Result<NodeLedger, Unfit> {
    if let Some(known) = app.cluster.cards(node) {
        return Ok(known);
    }
    let object = object.ok_or(Unfit::UnknownNode)?;
    let object = wire::imagined(object, &app.keys).map_err(|_| Unfit::UnreadableInventory)?;
    Ok(k8s::imagined(&object, &app.keys))
}
