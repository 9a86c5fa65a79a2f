//! `GET /v1/models`: the one model that is loaded, with its context as vLLM says it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::{Value, json};

use super::error::ApiError;
use crate::server::state::{Ready, Server};

/// Answers `GET /v1/models` and `GET /v1/models/{model}`.
///
/// # Errors
/// [`ApiError`] while the model is loaded, and for another model than that.
pub async fn models(State(server): State<Arc<Server>>, name: Option<Path<String>>) -> Result<Json<Value>, ApiError> {
    let ready = server.ready()?;
    match name {
        None => Ok(Json(json!({ "object": "list", "data": [model(&server, &ready)] }))),
        Some(Path(name)) if name == ready.model.name => Ok(Json(model(&server, &ready))),
        Some(Path(name)) => Err(ApiError::model(&name, &ready.model.name)),
    }
}

fn model(server: &Server, ready: &Ready) -> Value {
    json!({
        "id": ready.model.name,
        "object": "model",
        "created": server.started_ms / 1000,
        "owned_by": "xverse-chat",
        "max_model_len": ready.model.context_length,
    })
}
