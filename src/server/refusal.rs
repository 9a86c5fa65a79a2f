//! Refusals as HTTP: a status, and a [`ChatError`] as JSON in the body and beside it, for whoever counts or rewrites it.
//!
//! Every refusal has this one shape, whichever layer it comes from, so that the page and scripts read them alike.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Response, StatusCode, header},
    middleware::Next,
    response::IntoResponse,
};

use super::state::Server;
use crate::chat::error::{ChatError, ErrorCode};

/// The header by which Leptos marks a server function's error.
const SERVER_FUNCTION_ERROR: &str = "serverfnerror";

/// Most bytes of an error that are read back.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// An error with the status that its code carries.
#[must_use]
pub fn refusal(error: &ChatError) -> Response<Body> {
    refusal_with(status_of(error.code), error)
}

/// An error with a status of its own, for what HTTP has a more exact word for.
#[must_use]
pub fn refusal_with(status: StatusCode, error: &ChatError) -> Response<Body> {
    let mut response = (status, Json(error)).into_response();
    set_retry_after(&mut response, error);
    response.extensions_mut().insert(error.clone());
    response
}

/// A code as it is written in JSON.
#[must_use]
pub fn code_name(code: ErrorCode) -> String {
    let name = serde_json::to_value(code).ok();
    name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// Counts refusals by their code; each carries its error with it.
pub async fn count(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response<Body> {
    let response = next.run(request).await;
    if let Some(error) = response.extensions().get::<ChatError>() {
        server.metrics.refused(error);
    }
    response
}

/// Gives a server function's error the status of its code: Leptos answers every one with 500.
pub async fn with_status_of_error(response: Response<Body>) -> Response<Body> {
    if !response.headers().contains_key(SERVER_FUNCTION_ERROR) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, MAX_ERROR_BYTES).await else {
        return refusal(&ChatError::new(ErrorCode::Internal, "the error could not be told"));
    };
    let error = serde_json::from_slice::<ChatError>(&bytes);
    let mut response = Response::from_parts(parts, Body::from(bytes));
    if let Ok(error) = error {
        *response.status_mut() = status_of(error.code);
        set_retry_after(&mut response, &error);
        response.extensions_mut().insert(error);
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status_of(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn set_retry_after(response: &mut Response<Body>, error: &ChatError) {
    if let Some(seconds) = error.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}
