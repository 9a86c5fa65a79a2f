//! Refusals as HTTP: a status, and a [`ChatError`] as JSON in the body.
//!
//! Every refusal has this one shape, whichever layer it comes from, so that the page and scripts read them alike.

use axum::{
    Json,
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};

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
