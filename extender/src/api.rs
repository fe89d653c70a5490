//! What kube-scheduler calls: one handler for each verb, all under `/scheduler/`.
//!
//! Answers are 200 with `Error` inside, as the contract wants (`k8s.io/kube-scheduler/extender/v1`). A pod that
//! does not fit is never an error. Filter and prioritize change nothing but the intents, which only steer.

mod bind;
mod filter;
mod lookup;
mod predicates;
mod preempt;
mod prioritize;
mod ranking;
pub mod wire;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use k8s_openapi::api::core::v1::Pod;
use kerf::ids::PodUid;
use serde::Serialize;

use crate::App;

/// The scheduler's routes; with `legacy` also gpu-admission's.
pub fn router(app: Arc<App>, legacy: bool) -> Router {
    let routes = Router::new()
        .route("/scheduler/filter", post(filter::handle))
        .route("/scheduler/prioritize", post(prioritize::handle))
        .route("/scheduler/bind", post(bind::handle))
        .route("/scheduler/preempt", post(preempt::handle));
    let routes = if legacy { routes.route("/scheduler/predicates", post(predicates::handle)) } else { routes };
    routes.with_state(app)
}

/// Reads a request's body up to the configured size, once there is something to answer from.
async fn read(app: &App, body: Body) -> Result<axum::body::Bytes, String> {
    app.check_ready()?;
    to_bytes(body, app.max_body).await.map_err(|_| {
        format!("request cannot be read, or is larger than {} MiB (--max-body-mib)", app.max_body >> 20)
    })
}

/// The pod's uid; empty where it has none, which the API server never sends.
fn uid(pod: &Pod) -> PodUid {
    pod.metadata.uid.as_deref().unwrap_or_default().into()
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
