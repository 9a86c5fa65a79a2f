//! From what is asked to an answer that the engine has taken on.
//!
//! Checks role and settings, makes the prompt, and asks for a place in the queue. Records nothing.

use std::sync::Arc;

use crate::{
    chat::{
        error::{ChatError, ErrorCode},
        ids::ConversationId,
        info::PromptFormat,
        limits::MAX_MESSAGE_BYTES,
        message::{AnswerStats, Role},
        settings::{Sampling, Settings},
    },
    engine::{
        prompt::{self, Prompt, PromptError, Turn},
        remote::{RemoteEngine, RemoteRequest, body::RemotePrompt},
        request::{CacheScope, GenerationRequest, LogprobsRequest, SubmitError},
        tokenizer::TokenizerError,
        worker,
    },
    server::{
        generator::{Generator, Local},
        state::{Ready, Server},
    },
    storage::record::Answer,
};

/// Seconds after which a full queue is worth another try.
const QUEUE_RETRY_S: u32 = 5;

/// What an answer is asked for with.
pub(super) struct Ask<'a> {
    pub(super) conversation: ConversationId,
    pub(super) system: &'a str,
    pub(super) settings: &'a Settings,
}

/// An answer that the engine has taken on and nobody has recorded yet. Dropped, it is cancelled.
pub(super) struct Admitted {
    pub(super) events: worker::Generation,
    pub(super) prompt_ids: Arc<[u32]>,
    /// Tokens that were generated before, and their text as far as it is certain.
    pub(super) token_ids: Vec<u32>,
    pub(super) text: String,
    /// What is known of the answer already.
    pub(super) stats: AnswerStats,
    pub(super) sampling: Sampling,
    pub(super) seed: u64,
}

pub(super) fn check_role(ready: &Ready, role: Role) -> Result<(), ChatError> {
    let is_persons = matches!(role, Role::User | Role::Exec);
    if is_persons && ready.model.prompt_format.supports(role) {
        return Ok(());
    }
    let message = if is_persons {
        "this model's prompt format has no exec role"
    } else {
        "a message can be sent as user or exec only"
    };
    Err(ChatError::new(ErrorCode::RoleUnsupported, message))
}

pub(super) async fn admit(
    server: &Arc<Server>,
    ready: &Arc<Ready>,
    ask: &Ask<'_>,
    turns: Vec<Turn>,
) -> Result<Admitted, ChatError> {
    let sampling = ask.settings.resolve(&ready.model.defaults, ready.model.longest_answer)?;
    let seed = ask.settings.seed_or_random();
    let turns = with_system(ready, ask.system, turns)?;
    let local = match &ready.engine {
        Generator::Local(local) => local,
        Generator::Upstream(upstream) => {
            check_turns(&turns, ready.model.prompt_format)?;
            let request = RemoteRequest {
                prompt: RemotePrompt::Turns(turns),
                sampling,
                is_bounded: ask.settings.max_new_tokens.is_some(),
                seed,
                ignore_eos: false,
                stop: Vec::new(),
                logprobs: None,
            };
            return admit_upstream(upstream, request);
        }
    };
    let prompt = make_prompt(server, local, turns, sampling.max_new_tokens).await?;
    let sampling = local.prompts.sampling_beside(prompt.ids.len(), sampling);
    let prompt_ids: Arc<[u32]> = prompt.ids.into();
    let request = request(ask.conversation, prompt_ids.clone(), Arc::default(), sampling, seed);
    let events = local.engine.submit(request).map_err(submit_error)?;
    let stats = AnswerStats {
        prompt_tokens: prompt_ids.len() as u32,
        dropped_rounds: prompt.dropped_rounds as u32,
        dropped_system: prompt.dropped_system,
        ..AnswerStats::default()
    };
    Ok(Admitted { events, prompt_ids, token_ids: Vec::new(), text: String::new(), stats, sampling, seed })
}

/// Refuses what no prompt is made of here, of which an upstream server is not asked.
pub(in crate::server) fn check_turns(turns: &[Turn], format: PromptFormat) -> Result<(), ChatError> {
    prompt::check(turns, format).map(|_| ()).map_err(prompt_error)
}

/// Asks an upstream server, which makes the prompt and counts its tokens itself.
fn admit_upstream(upstream: &RemoteEngine, request: RemoteRequest) -> Result<Admitted, ChatError> {
    let (sampling, seed) = (request.sampling, request.seed);
    Ok(Admitted {
        events: upstream.submit(request).map_err(submit_error)?,
        prompt_ids: Arc::default(),
        token_ids: Vec::new(),
        text: String::new(),
        stats: AnswerStats::default(),
        sampling,
        seed,
    })
}

/// Asks the engine to go on with an answer, with up to `more` tokens.
pub(super) fn admit_again(
    ready: &Ready,
    conversation: ConversationId,
    answer: &Answer,
    more: Option<u32>,
) -> Result<Admitted, ChatError> {
    let Some(local) = ready.engine.local() else {
        return Err(ChatError::new(
            ErrorCode::Conflict,
            "answers of an upstream server cannot be continued; ask for another answer",
        ));
    };
    if answer.weights != *ready.fingerprint.as_bytes() {
        return Err(ChatError::new(
            ErrorCode::OtherModel,
            "the answer was begun by another model; ask for another answer instead",
        ));
    }
    let more = Settings { max_new_tokens: more, ..Settings::default() }
        .resolve(&ready.model.defaults, ready.model.longest_answer)?
        .max_new_tokens;
    let n_tokens = answer.token_ids.len() as u32;
    let room = ready.model.context_length.saturating_sub(answer.prompt_ids.len() as u32 + n_tokens);
    if room == 0 {
        return Err(ChatError::new(ErrorCode::Conflict, "the context is full; begin a new conversation"));
    }
    let sampling = Sampling { max_new_tokens: n_tokens + more.min(room), ..answer.sampling };
    let continued = answer.token_ids.as_slice().into();
    let request = request(conversation, answer.prompt_ids.clone(), continued, sampling, answer.seed);
    let events = local.engine.submit(request).map_err(submit_error)?;
    Ok(Admitted {
        events,
        prompt_ids: answer.prompt_ids.clone(),
        text: local.prompts.certain_text(&answer.token_ids),
        token_ids: answer.token_ids.clone(),
        stats: answer.stats,
        sampling,
        seed: answer.seed,
    })
}

fn request(
    conversation: ConversationId,
    prompt_ids: Arc<[u32]>,
    continued_ids: Arc<[u32]>,
    sampling: Sampling,
    seed: u64,
) -> GenerationRequest {
    GenerationRequest {
        prompt_ids,
        continued_ids,
        sampling,
        seed,
        ignore_eos: false,
        stop: Vec::new(),
        logprobs: LogprobsRequest::default(),
        scope: CacheScope::Shared(conversation.as_u128()),
    }
}

fn with_system(ready: &Ready, system: &str, turns: Vec<Turn>) -> Result<Vec<Turn>, ChatError> {
    if system.trim().is_empty() {
        return Ok(turns);
    }
    if !ready.model.prompt_format.supports(Role::System) {
        return Err(ChatError::new(ErrorCode::RoleUnsupported, "this model's prompt format has no system prompt"));
    }
    if system.len() > MAX_MESSAGE_BYTES {
        return Err(ChatError::new(
            ErrorCode::MessageTooLong,
            format!("the system prompt has {} bytes, at most {MAX_MESSAGE_BYTES} are allowed", system.len()),
        ));
    }
    let system = Turn { role: Role::System, text: system.to_owned() };
    Ok(std::iter::once(system).chain(turns).collect())
}

pub(in crate::server) async fn make_prompt(
    server: &Server,
    local: &Local,
    turns: Vec<Turn>,
    max_new_tokens: u32,
) -> Result<Prompt, ChatError> {
    let room = server.prompts.acquire().await;
    let prompts = local.prompts.clone();
    let made = tokio::task::spawn_blocking(move || prompts.build(&turns, max_new_tokens as usize)).await;
    drop(room);
    match made {
        Ok(prompt) => prompt.map_err(prompt_error),
        Err(error) => {
            tracing::error!(%error, "making a prompt failed");
            Err(ChatError::new(ErrorCode::Internal, "the message could not be made into a prompt"))
        }
    }
}

fn prompt_error(error: PromptError) -> ChatError {
    match &error {
        PromptError::NewestTooLong { .. } => ChatError::new(ErrorCode::PromptTooLong, error.to_string()),
        PromptError::Role { .. } | PromptError::SystemNotFirst { .. } => {
            ChatError::new(ErrorCode::RoleUnsupported, error.to_string())
        }
        PromptError::NothingToAnswer => ChatError::new(ErrorCode::Conflict, error.to_string()),
        PromptError::Tokenizer(TokenizerError::ControlText { .. }) => {
            ChatError::new(ErrorCode::Malformed, error.to_string())
        }
        PromptError::Tokenizer(cause) => {
            tracing::error!(%cause, "tokenising failed");
            ChatError::new(ErrorCode::Internal, "the message could not be tokenised")
        }
    }
}

pub(in crate::server) fn submit_error(error: SubmitError) -> ChatError {
    match &error {
        SubmitError::QueueFull { .. } => {
            ChatError::new(ErrorCode::QueueFull, error.to_string()).retry_after(QUEUE_RETRY_S)
        }
        SubmitError::TooLong { .. } => ChatError::new(ErrorCode::PromptTooLong, error.to_string()),
        SubmitError::ShuttingDown => ChatError::new(ErrorCode::ShuttingDown, error.to_string()).retry_after(10),
        SubmitError::EmptyPrompt | SubmitError::UnknownToken { .. } => {
            tracing::error!(%error, "the engine refused a prompt");
            ChatError::new(ErrorCode::Internal, "the engine refused the prompt")
        }
    }
}
