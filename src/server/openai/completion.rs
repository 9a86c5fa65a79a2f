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
    answer::{Answer, Echo, Kind},
    body::Head,
    choices::{Choices, Request},
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
        remote::{RemoteRequest, body::RemotePrompt},
        request::{GenerationRequest, LogprobsRequest},
        tokenizer::ChatTokenizer,
    },
    server::{
        generator::{Generator, Local},
        state::Server,
    },
};

/// Most prompts of one request.
const MOST_PROMPTS: usize = 256;

/// Most log-probabilities of one request, with the likeliest tokens beside each: some 100 MB while they are told.
const MOST_LOGPROBS: usize = 1 << 20;

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
    let top = fields.whole("logprobs", 0..=MOST_TOP)?;
    let echo = match (fields.flag("echo")?, top) {
        (false, _) => Echo::Nothing,
        (true, None) => Echo::Text,
        (true, Some(_)) => Echo::Logprobs,
    };
    let (mut requests, mut answers, mut n_told) = (Vec::new(), Vec::new(), 0);
    for prompt in prompts(&mut fields)? {
        let answer = |index| Answer::new(Kind::Text, index);
        match &ready.engine {
            Generator::Local(local) => {
                let context = ready.model.context_length;
                let logprobs = LogprobsRequest { generated: top, prompt: top.filter(|_| echo == Echo::Logprobs) };
                let asked = of_local(&server, local, prompt, &drawing, (context, logprobs)).await?;
                let n_echoed = if echo == Echo::Logprobs { asked.prompt_ids.len() } else { 0 };
                n_told += drawing.n as usize * (n_echoed + asked.sampling.max_new_tokens as usize);
                for index in 0..drawing.n {
                    let request = GenerationRequest { seed: drawing.seed_of(index), ..asked.clone() };
                    answers.push(answer(index).with_prompt(local.prompts.tokenizer(), &asked.prompt_ids, echo));
                    requests.push(Request::Local(local.engine.clone(), request));
                }
            }
            Generator::Upstream(_) if echo != Echo::Nothing => {
                return Err(ApiError::unsupported("echo", "an upstream server generates here; ask it directly"));
            }
            Generator::Upstream(upstream) => {
                let (prompt, sampling) = of_upstream(prompt, &drawing, ready.model.context_length)?;
                n_told += drawing.n as usize * sampling.max_new_tokens as usize;
                for index in 0..drawing.n {
                    let request = RemoteRequest { sampling, ..drawing.remote_request(prompt.clone(), index, top) };
                    answers.push(answer(index));
                    requests.push(Request::Upstream(upstream.clone(), request));
                }
            }
        }
    }
    check_told(n_told, top)?;
    let head = Head::new(Kind::Text, &ready.model.name);
    deliver(head, answers, Choices::begin(&server, requests, arrived)?, drawing.delivery).await
}

/// Refuses more log-probabilities than there is memory for.
fn check_told(n_tokens: usize, top: Option<u32>) -> Result<(), ApiError> {
    let n_told = top.map_or(0, |top| n_tokens.saturating_mul(top as usize + 1));
    if n_told <= MOST_LOGPROBS {
        return Ok(());
    }
    Err(ApiError::field(
        "logprobs",
        format!(
            "logprobs asks for up to {n_told} numbers, of {n_tokens} tokens in all, expected at most {MOST_LOGPROBS}\n\
             hint: send fewer prompts, or a smaller logprobs, n or max_tokens"
        ),
    ))
}

/// What the engine in this program is asked for one prompt.
async fn of_local(
    server: &Server,
    local: &Local,
    prompt: Prompt,
    drawing: &Drawing,
    (context, logprobs): (u32, LogprobsRequest),
) -> Result<GenerationRequest, ApiError> {
    let ids = read(server, local.prompts.tokenizer(), prompt).await?;
    let sampling = Sampling { max_new_tokens: room(context, drawing, ids.len())?, ..drawing.sampling };
    Ok(drawing.local_request(ids, sampling, logprobs))
}

/// What upstream servers are asked to go on with, and how. Where nobody said how many tokens may follow, no more are asked for
/// than fit, as far as that is known here; a text's tokens only they can count.
fn of_upstream(prompt: Prompt, drawing: &Drawing, context: u32) -> Result<(RemotePrompt, Sampling), ApiError> {
    let mut sampling = drawing.sampling;
    let prompt = match prompt {
        Prompt::Text(text) if text.is_empty() => return Err(no_tokens()),
        Prompt::Ids(ids) if ids.is_empty() => return Err(no_tokens()),
        Prompt::Text(text) => RemotePrompt::Text(text),
        Prompt::Ids(ids) => {
            let rest = context.saturating_sub(u32::try_from(ids.len()).unwrap_or(u32::MAX));
            // One that fills the context may still fit: not every upstream says how long that is.
            if !drawing.is_bounded && rest > 0 {
                sampling.max_new_tokens = sampling.max_new_tokens.min(rest);
            }
            RemotePrompt::Ids(ids.into())
        }
    };
    Ok((prompt, sampling))
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

async fn read(server: &Server, tokenizer: &Arc<ChatTokenizer>, prompt: Prompt) -> Result<Vec<u32>, ApiError> {
    let ids = match prompt {
        Prompt::Text(text) => tokenized(server, tokenizer, text, "prompt").await?,
        Prompt::Ids(ids) => ids,
    };
    ids_within("prompt", &ids, tokenizer)?;
    if ids.is_empty() {
        return Err(no_tokens());
    }
    Ok(ids)
}

fn no_tokens() -> ApiError {
    ApiError::field("prompt", "prompt has no tokens, expected at least one")
}

/// How many tokens may follow on a prompt of so many: as many as were asked for, or where nobody said, as many as fit.
fn room(context: u32, drawing: &Drawing, n_prompt: usize) -> Result<u32, ApiError> {
    let n_prompt = u32::try_from(n_prompt).unwrap_or(u32::MAX);
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
