//! Refusals in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}` and the status that goes with it.
//!
//! What the layers before the API refuse (a missing token, a body that is too large) is told in the same shape.

use axum::{
    Json,
    body::Body,
    extract::Request,
    http::{Response, StatusCode, header},
    middleware::Next,
    response::IntoResponse,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{PATHS, is_api};
use crate::{
    chat::{
        error::{ChatError, ErrorCode},
        settings::OutOfRange,
    },
    server::refusal::{code_name, refusal_with},
};

/// Why the API refused.
#[derive(Debug, Clone)]
pub struct ApiError {
    error: ChatError,
    param: Option<String>,
    code: Option<&'static str>,
}

/// What stands in a refusal.
#[derive(Debug, Clone, Serialize)]
struct Shape {
    message: String,
    r#type: &'static str,
    param: Option<String>,
    code: String,
}

impl ApiError {
    /// A field that is wrong.
    #[must_use]
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let error = ChatError::new(ErrorCode::Malformed, message);
        Self { error, param: Some(param.into()), code: None }
    }

    /// A field that would change the answer and is not there.
    #[must_use]
    pub fn unsupported(param: &str, hint: &str) -> Self {
        let message = format!("{param} is not supported; expected a request without it\nhint: {hint}");
        Self { code: Some("unsupported_parameter"), ..Self::field(param, message) }
    }

    /// A value outside its bounds.
    #[must_use]
    pub fn out_of_range(error: OutOfRange) -> Self {
        let param = error.name.to_owned();
        Self { error: error.into(), param: Some(param), code: None }
    }

    /// Another model than the one that is loaded.
    #[must_use]
    pub fn model(found: &str, expected: &str) -> Self {
        let found: String = found.chars().take(100).collect();
        let error = ChatError::new(ErrorCode::NotFound, format!("there is no model {found:?}, expected {expected:?}"));
        Self { error, param: Some("model".to_owned()), code: Some("model_not_found") }
    }

    /// The same, about this field.
    #[must_use]
    pub fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// As it stands in a stream that has begun.
    #[must_use]
    pub fn event(&self) -> Value {
        json!({ "error": self.shape(status(&self.error)) })
    }

    fn shape(&self, status: StatusCode) -> Shape {
        let code = match (self.code, self.error.code) {
            (Some(code), _) => code.to_owned(),
            (None, ErrorCode::PromptTooLong) => "context_length_exceeded".to_owned(),
            (None, code) => code_name(code),
        };
        Shape { message: self.error.message.clone(), r#type: kind(status), param: self.param.clone(), code }
    }
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        Self { error, param: None, code: None }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let status = status(&self.error);
        let mut response = refusal_with(status, &self.error);
        response.extensions_mut().insert(self.shape(status));
        response
    }
}

/// OpenAI's clients know 400 where the page's commands have finer words.
fn status(error: &ChatError) -> StatusCode {
    match error.code.http_status() {
        409 | 422 => StatusCode::BAD_REQUEST,
        status => StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

/// Gives what is refused of the API OpenAI's shape, whoever refused it.
pub async fn in_api_shape(request: Request, next: Next) -> Response<Body> {
    let path = request.uri().path();
    let (is_asked_for, is_there) = (is_api(path), PATHS.contains(&path) || path.starts_with("/v1/models/"));
    let response = next.run(request).await;
    if !is_asked_for || !(response.status().is_client_error() || response.status().is_server_error()) {
        return response;
    }
    let status = match response.status() {
        // What leads nowhere is read as a file, which cannot be sent to.
        StatusCode::METHOD_NOT_ALLOWED if !is_there => StatusCode::NOT_FOUND,
        status => status,
    };
    let shape = match (response.extensions().get::<Shape>(), response.extensions().get::<ChatError>()) {
        (Some(shape), _) => shape.clone(),
        (None, Some(error)) => Shape { r#type: kind(status), ..ApiError::from(error.clone()).shape(status) },
        (None, None) => no_such(status),
    };
    let (mut parts, _) = response.into_parts();
    parts.status = status;
    // What the page says where there is no such address is of the page's kind, perhaps compressed, and gives a cookie.
    for of_the_page in
        [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING, header::VARY, header::SET_COOKIE]
    {
        parts.headers.remove(of_the_page);
    }
    let told = Json(json!({ "error": shape })).into_response();
    parts.headers.extend(told.headers().clone());
    Response::from_parts(parts, told.into_body())
}

/// What no handler refused: there is no such path or method.
fn no_such(status: StatusCode) -> Shape {
    let (message, code) = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            ("this path is asked for with another method".to_owned(), "method_not_allowed")
        }
        StatusCode::NOT_FOUND => (format!("there is no such path; expected {}", PATHS.join(", ")), "not_found"),
        _ => (
            "the request cannot be read; expected a path and headers as OpenAI's clients send them".to_owned(),
            "malformed",
        ),
    };
    Shape { message, r#type: kind(status), param: None, code: code.to_owned() }
}
