//! A parsed request, and the result of a write.

use std::collections::HashMap;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::failure::Failure;
use super::object::{self, Object};
use super::resource::Target;

#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) target: Target,
    pub(crate) query: HashMap<String, String>,
    pub(crate) content_type: String,
    pub(crate) agent: String,
    pub(crate) body: Bytes,
}

impl Ask {
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.query.get(name).is_some_and(|value| matches!(value.as_str(), "true" | "1"))
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::bad_request(format!("the body is not JSON: {error}")))
    }

    /// The body of a request that may have none.
    pub(crate) fn optional_json(&self) -> Result<Value, Failure> {
        if self.body.is_empty() {
            return Ok(json!({}));
        }
        self.json()
    }
}

/// The result of a write.
#[derive(Debug)]
pub(crate) enum Answer {
    Created(Object),
    Done(Object),
    /// A `Status` instead of an object.
    Success,
}

impl Answer {
    pub(crate) fn code(&self) -> StatusCode {
        match self {
            Self::Created(_) | Self::Success => StatusCode::CREATED,
            Self::Done(_) => StatusCode::OK,
        }
    }

    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Self::Created(object) | Self::Done(object) => Some(object::name(&object.value).to_owned()),
            Self::Success => None,
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let code = self.code();
        match self {
            Self::Created(object) | Self::Done(object) => reply(code, object.text()),
            Self::Success => reply(
                code,
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
                    .to_string(),
            ),
        }
    }
}

pub(crate) fn reply(code: StatusCode, body: impl Into<Body>) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}
