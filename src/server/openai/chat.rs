//! `POST /v1/chat/completions`: an answer to a conversation, whose prompt is made as for the page.

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
    tokens::missing,
};
use crate::{
    chat::message::{MessageText, Role},
    engine::{
        prompt::Turn,
        remote::body::RemotePrompt,
        request::{GenerationRequest, LogprobsRequest},
    },
    server::{
        generator::{Generator, Local},
        service::ask::{check_turns, make_prompt},
        state::Server,
    },
};

/// Answers `POST /v1/chat/completions`.
///
/// # Errors
/// [`ApiError`].
pub async fn chat_completions(State(server): State<Arc<Server>>, body: Bytes) -> Result<Response<Body>, ApiError> {
    let arrived = Instant::now();
    let mut fields = Fields::read(&body)?;
    let ready = server.ready()?;
    let drawing = Drawing::read(&mut fields, &ready, &["max_completion_tokens", "max_tokens"], 1)?;
    let top = top_logprobs(&mut fields)?;
    let turns = turns(&mut fields)?;
    let answer = |index| Answer::new(Kind::Chat, index);
    let (requests, answers): (Vec<_>, Vec<_>) = match &ready.engine {
        Generator::Local(local) => {
            let (asked, dropped_rounds) = of_local(&server, local, turns, &drawing, top).await?;
            let prompt_ids = asked.prompt_ids.clone();
            let request = |index| GenerationRequest { seed: drawing.seed_of(index), ..asked.clone() };
            let told = |index| {
                answer(index).with_prompt(local.prompts.tokenizer(), &prompt_ids, Echo::Nothing).without(dropped_rounds)
            };
            (0..drawing.n).map(|index| (Request::Local(local.engine.clone(), request(index)), told(index))).unzip()
        }
        Generator::Upstream(upstream) => {
            check_turns(&turns, ready.model.prompt_format).map_err(|error| ApiError::from(error).about("messages"))?;
            let prompt = RemotePrompt::Turns(turns);
            let request = |index| drawing.remote_request(prompt.clone(), index, top);
            (0..drawing.n).map(|index| (Request::Upstream(upstream.clone(), request(index)), answer(index))).unzip()
        }
    };
    let head = Head::new(Kind::Chat, &ready.model.name);
    deliver(head, answers, Choices::begin(&server, requests, arrived)?, drawing.delivery).await
}

/// What the engine in this program is asked, and how many rounds did not fit.
async fn of_local(
    server: &Server,
    local: &Local,
    turns: Vec<Turn>,
    drawing: &Drawing,
    top: Option<u32>,
) -> Result<(GenerationRequest, usize), ApiError> {
    let prompt = make_prompt(server, local, turns, drawing.sampling.max_new_tokens)
        .await
        .map_err(|error| ApiError::from(error).about("messages"))?;
    let sampling = local.prompts.sampling_beside(prompt.ids.len(), drawing.sampling);
    let request = drawing.local_request(prompt.ids, sampling, LogprobsRequest { generated: top, prompt: None });
    Ok((request, prompt.dropped_rounds))
}

/// How many of the likeliest tokens are told beside each one, where log-probabilities are asked for.
fn top_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let is_asked = fields.flag("logprobs")?;
    let top = fields.whole("top_logprobs", 0..=MOST_TOP)?;
    match (is_asked, top) {
        (false, Some(top)) if top > 0 => Err(ApiError::field(
            "top_logprobs",
            format!("top_logprobs is {top}, expected it only together with logprobs"),
        )),
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0))),
    }
}

fn turns(fields: &mut Fields) -> Result<Vec<Turn>, ApiError> {
    let messages = match fields.take("messages") {
        None => return Err(missing("messages", "a list of messages")),
        Some(Value::Array(messages)) => messages,
        Some(other) => return Err(wrong("messages", &other, "a list of messages")),
    };
    if messages.is_empty() {
        return Err(ApiError::field("messages", "messages is empty, expected at least one message"));
    }
    let turns = messages.into_iter().enumerate().map(|(index, message)| turn(index, message));
    // A system prompt without text is none; clients send it where nobody wrote one.
    turns
        .filter(|turn| !turn.as_ref().is_ok_and(|turn| turn.role == Role::System && turn.text.trim().is_empty()))
        .collect()
}

fn turn(index: usize, message: Value) -> Result<Turn, ApiError> {
    let name = |field: &str| format!("messages[{index}].{field}");
    let Value::Object(mut message) = message else {
        return Err(wrong(&format!("messages[{index}]"), &message, "an object with role and content"));
    };
    let role = match message.remove("role") {
        Some(Value::String(role)) => match role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" | "exec" => Role::Exec,
            _ => return Err(wrong(&name("role"), &role.into(), "system, user, assistant or tool")),
        },
        other => return Err(wrong(&name("role"), &other.unwrap_or_default(), "system, user, assistant or tool")),
    };
    for field in ["tool_calls", "function_call"] {
        let is_none = |call: &Value| call.is_null() || call.as_array().is_some_and(Vec::is_empty);
        if message.remove(field).is_some_and(|call| !is_none(&call)) {
            return Err(ApiError::unsupported(&name(field), "write the call into the message's content"));
        }
    }
    let text = content(&name("content"), message.remove("content").unwrap_or_default())?;
    let text = match role {
        // What the model said, or a tool gave, may be nothing.
        Role::Assistant => text,
        Role::System | Role::Exec if text.trim().is_empty() => text,
        Role::System | Role::User | Role::Exec => {
            MessageText::parse(&text).map_err(|error| ApiError::from(error).about(name("content")))?.into()
        }
    };
    Ok(Turn { role, text })
}

/// A text, or a list of parts that are texts.
fn content(name: &str, content: Value) -> Result<String, ApiError> {
    match content {
        Value::String(text) => Ok(text),
        Value::Array(parts) => parts
            .into_iter()
            .map(|part| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text"), Some(text)) => Ok(text.to_owned()),
                _ => Err(wrong(name, &part["type"], "parts of type text: the model reads and writes text")),
            })
            .collect(),
        other => Err(wrong(name, &other, "a text or a list of texts")),
    }
}
