//! `POST /tokenize`, `POST /detokenize` and `GET /tokenizer_info`: the model's own tokenizer, in vLLM's shape.

use std::sync::Arc;

use axum::{Json, body::Bytes, extract::State};
use serde_json::{Value, json};

use super::{
    completion::{ids_within, token_ids},
    error::ApiError,
    fields::Fields,
    sampling::check_model,
};
use crate::{
    chat::error::{ChatError, ErrorCode},
    engine::tokenizer::{ChatTokenizer, TokenizerError},
    server::state::{Ready, Server},
};

/// Most bytes of a text that is tokenised in one piece.
pub(super) const MOST_TEXT_BYTES: usize = 256 * 1024;

/// Answers `POST /tokenize`: `{"prompt"}` gives `{"tokens", "count", "max_model_len"}`. No special token comes out of a text.
///
/// # Errors
/// [`ApiError`].
pub async fn tokenize(State(server): State<Arc<Server>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::read(&body)?;
    let ready = server.ready()?;
    check_model(&mut fields, &ready)?;
    let text = fields.text("prompt")?.ok_or_else(|| missing("prompt", "a text"))?;
    let tokens = tokenized(&server, tokenizer(&ready)?, text, "prompt").await?;
    Ok(Json(json!({ "count": tokens.len(), "max_model_len": ready.model.context_length, "tokens": tokens })))
}

/// Answers `POST /detokenize`: `{"tokens"}` gives `{"prompt"}`. Special tokens give no text.
///
/// # Errors
/// [`ApiError`].
pub async fn detokenize(State(server): State<Arc<Server>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::read(&body)?;
    let ready = server.ready()?;
    check_model(&mut fields, &ready)?;
    let tokens = fields.take("tokens").ok_or_else(|| missing("tokens", "a list of token ids"))?;
    let tokenizer = tokenizer(&ready)?;
    let ids = token_ids("tokens", &tokens)?;
    ids_within("tokens", &ids, tokenizer)?;
    Ok(Json(json!({ "prompt": tokenizer.decode(&ids) })))
}

fn tokenizer(ready: &Ready) -> Result<&Arc<ChatTokenizer>, ApiError> {
    let local = ready.engine.local().ok_or_else(|| {
        let message = "an upstream server generates here and has the tokenizer; expected a server that computes the model itself\n\
                       hint: ask the upstream server";
        ChatError::new(ErrorCode::Malformed, message)
    })?;
    Ok(local.prompts.tokenizer())
}

/// Answers `GET /tokenizer_info`: the token that ends an answer, in vLLM's shape. None begins a text.
///
/// # Errors
/// [`ApiError`].
pub async fn tokenizer_info(State(server): State<Arc<Server>>) -> Result<Json<Value>, ApiError> {
    let ready = server.ready()?;
    let tokenizer = tokenizer(&ready)?;
    let end = ready.engine.local().map(|local| local.prompts.eos_token_id());
    let end = end.and_then(|id| tokenizer.token_of(id));
    Ok(Json(json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end })))
}

pub(super) fn missing(name: &str, expected: &str) -> ApiError {
    ApiError::field(name, format!("{name} is missing, expected {expected}"))
}

/// The ids of a text that stands in the field `name`.
pub(super) async fn tokenized(
    server: &Server,
    tokenizer: &Arc<ChatTokenizer>,
    text: String,
    name: &str,
) -> Result<Vec<u32>, ApiError> {
    if text.len() > MOST_TEXT_BYTES {
        let message = format!("{name} has {} bytes, at most {MOST_TEXT_BYTES} are allowed", text.len());
        return Err(ApiError::from(ChatError::new(ErrorCode::MessageTooLong, message)).about(name));
    }
    let room = server.prompts.acquire().await;
    let tokenizer = tokenizer.clone();
    let ids = tokio::task::spawn_blocking(move || tokenizer.encode(&text)).await;
    drop(room);
    match ids {
        Ok(Ok(ids)) => Ok(ids),
        Ok(Err(error @ TokenizerError::ControlText { .. })) => Err(ApiError::field(name, error.to_string())),
        Ok(Err(error)) => {
            tracing::error!(%error, "tokenising failed");
            Err(ChatError::new(ErrorCode::Internal, "the text could not be tokenised").into())
        }
        Err(error) => {
            tracing::error!(%error, "tokenising broke off");
            Err(ChatError::new(ErrorCode::Internal, "the text could not be tokenised").into())
        }
    }
}
