//! `/healthz`: the process answers. `/readyz`: the model is loaded, its thread is there and not stuck, and the server is not
//! on its way down.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::Response, response::IntoResponse};

use super::{refusal::refusal, state::Server};
use crate::chat::error::{ChatError, ErrorCode};

/// Answers `GET /healthz`.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Answers `GET /readyz`: 200, or 503 with the reason.
pub async fn readyz(State(server): State<Arc<Server>>) -> Response<Body> {
    match server.ready() {
        Ok(ready) if ready.engine.is_alive() => "ready\n".into_response(),
        // Between steps, where nothing should take long.
        Ok(_) => refusal(&ChatError::new(ErrorCode::ModelLoading, "the engine does not answer").retry_after(5)),
        Err(error) => refusal(&error),
    }
}
