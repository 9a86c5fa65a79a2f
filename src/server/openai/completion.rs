//! `POST /v1/completions`: what follows on a text or on token ids, and the log-probabilities of a prompt, by which evaluation
//! harnesses choose among answers.

use std::{sync::Arc, time::Instant};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::Response,
};
use serde_json::Value;

use super::{
    answer::{Answer, Echo, Head, Kind},
    choices::Choices,
    error::ApiError,
    fields::{Fields, wrong},
    sampling::{Drawing, MOST_TOP},
    stream::deliver,
    tokens::{missing, tokenized},
};
use crate::{
    chat::{
        error::{ChatError, ErrorCode},
        settings::Sampling,
    },
    engine::{
        request::{CacheScope, GenerationRequest, LogprobsRequest},
        tokenizer::ChatTokenizer,
    },
    server::state::{Ready, Server},
};

/// Most prompts of one request.
const MOST_PROMPTS: usize = 256;

/// One prompt as it was given.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// Answers `POST /v1/completions`.
///
/// # Errors
/// [`ApiError`].
pub async fn completions(State(server): State<Arc<Server>>, body: Bytes) -> Result<Response<Body>, ApiError> {
    let arrived = Instant::now();
    let mut fields = Fields::read(&body)?;
    let ready = server.ready()?;
    let drawing = Drawing::read(&mut fields, &ready, &["max_tokens"], 0)?;
    let top = fields.whole_up_to("logprobs", MOST_TOP)?;
    let echo = match (fields.flag("echo")?, top) {
        (false, _) => Echo::Nothing,
        (true, None) => Echo::Text,
        (true, Some(_)) => Echo::Logprobs,
    };
    let (mut requests, mut answers) = (Vec::new(), Vec::new());
    for prompt in prompts(&mut fields)? {
        let ids: Arc<[u32]> = read(&server, &ready, prompt).await?.into();
        let sampling = Sampling { max_new_tokens: room(&ready, &drawing, ids.len())?, ..drawing.sampling };
        for index in 0..drawing.n {
            requests.push(GenerationRequest {
                prompt_ids: ids.clone(),
                continued_ids: Arc::default(),
                sampling,
                seed: drawing.seed_of(index),
                ignore_eos: drawing.ignore_eos,
                stop: drawing.stop.clone(),
                logprobs: LogprobsRequest { generated: top, prompt: top.filter(|_| echo == Echo::Logprobs) },
                scope: CacheScope::Alone,
            });
            answers.push(Answer::new(Kind::Text, ready.prompts.tokenizer(), &ids, echo, index));
        }
    }
    let head = Head::new(Kind::Text, &ready.model.name, 0);
    let choices = Choices::begin(&server, &ready, requests, arrived)?;
    deliver(head, answers, choices, drawing.delivery).await
}

/// The prompts: a text, token ids, or a list of either.
fn prompts(fields: &mut Fields) -> Result<Vec<Prompt>, ApiError> {
    let prompts = match fields.take("prompt") {
        None => return Err(missing("prompt", "a text, a list of token ids, or a list of either")),
        Some(Value::Array(items)) if items.is_empty() => {
            return Err(ApiError::field("prompt", "prompt is empty, expected a text or token ids"));
        }
        Some(Value::Array(items)) if items.iter().all(Value::is_number) => {
            vec![Prompt::Ids(token_ids("prompt", &Value::Array(items))?)]
        }
        Some(Value::Array(items)) => {
            let each = items.into_iter().enumerate().map(|(index, item)| prompt(&format!("prompt[{index}]"), item));
            each.collect::<Result<_, _>>()?
        }
        Some(item) => vec![prompt("prompt", item)?],
    };
    if prompts.len() > MOST_PROMPTS {
        let message = format!("prompt has {} prompts, expected at most {MOST_PROMPTS}", prompts.len());
        return Err(ApiError::field("prompt", message));
    }
    Ok(prompts)
}

fn prompt(name: &str, item: Value) -> Result<Prompt, ApiError> {
    match item {
        Value::String(text) => Ok(Prompt::Text(text)),
        list @ Value::Array(_) => Ok(Prompt::Ids(token_ids(name, &list)?)),
        other => Err(wrong(name, &other, "a text or a list of token ids")),
    }
}

/// A list of token ids, which may be ids of no model.
pub(super) fn token_ids(name: &str, list: &Value) -> Result<Vec<u32>, ApiError> {
    let id = |item: &Value| {
        let id = item.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| wrong(name, item, "token ids, which are whole numbers of at least 0"))
    };
    match list {
        Value::Array(items) => items.iter().map(id).collect(),
        other => Err(wrong(name, other, "a list of token ids")),
    }
}

/// Refuses ids that are not this vocabulary's.
pub(super) fn ids_within(name: &str, ids: &[u32], tokenizer: &ChatTokenizer) -> Result<(), ApiError> {
    let most = tokenizer.vocab_size().saturating_sub(1);
    match ids.iter().find(|id| **id as usize > most) {
        None => Ok(()),
        Some(id) => Err(ApiError::field(name, format!("{name} has token id {id}, expected 0 to {most}"))),
    }
}

async fn read(server: &Server, ready: &Ready, prompt: Prompt) -> Result<Vec<u32>, ApiError> {
    let tokenizer = ready.prompts.tokenizer();
    let ids = match prompt {
        Prompt::Text(text) => tokenized(server, tokenizer, text, "prompt").await?,
        Prompt::Ids(ids) => ids,
    };
    ids_within("prompt", &ids, tokenizer)?;
    if ids.is_empty() {
        return Err(ApiError::field("prompt", "prompt has no tokens, expected at least one"));
    }
    Ok(ids)
}

/// How many tokens may follow on a prompt of so many: as many as were asked for, or where nobody said, as many as fit.
fn room(ready: &Ready, drawing: &Drawing, n_prompt: usize) -> Result<u32, ApiError> {
    let (context, n_prompt) = (ready.model.context_length, u32::try_from(n_prompt).unwrap_or(u32::MAX));
    let (most, rest) = (drawing.sampling.max_new_tokens, context.saturating_sub(n_prompt));
    match (drawing.is_bounded, rest) {
        (true, _) if most <= rest && n_prompt <= context => Ok(most),
        (false, 1..) => Ok(most.min(rest)),
        (is_bounded, _) => {
            let wanted = if is_bounded { most } else { 1 };
            let message = format!(
                "the prompt has {n_prompt} tokens and the answer may have {wanted}, expected no more than {context} together"
            );
            Err(ApiError::from(ChatError::new(ErrorCode::PromptTooLong, message)).about("prompt"))
        }
    }
}
