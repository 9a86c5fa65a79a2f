//! The commands, carried out.
//!
//! Order of a send: check, make the prompt, be admitted by the engine, and only then record; so a refusal leaves nothing
//! behind. Knows nothing of HTTP.

pub mod once;

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use leptos::prelude::use_context;

use self::once::Made;
use super::{
    conversations::{AnswerPlace, AnswerRecord, Record},
    generations::{
        Generation,
        run::{Begin, run},
    },
    state::{Ready, Server},
};
use crate::{
    chat::{
        command::{RegenerateCommand, SendCommand, Started},
        error::{ChatError, ErrorCode},
        ids::{ConversationId, GenerationId, MessageId},
        info::PageData,
        limits::MAX_MESSAGE_BYTES,
        message::{AnswerState, AnswerStats, MessageText, Role},
        settings::{MAX_SEED, Sampling, Settings},
    },
    engine::{
        prompt::{Prompt, PromptError, Turn},
        request::{CacheScope, GenerationRequest, LogprobsRequest, SubmitError},
        tokenizer::TokenizerError,
        worker,
    },
};

/// Seconds after which a full queue is worth another try.
const QUEUE_RETRY_S: u32 = 5;

/// See [`crate::api::page`].
///
/// # Errors
/// As there.
pub fn page(conversation: Option<ConversationId>) -> Result<PageData, ChatError> {
    let server = server()?;
    let view =
        conversation.map(|id| server.conversations().view(id).ok_or_else(|| ChatError::not_found("conversation")));
    Ok(PageData { title: server.title.clone(), engine: server.engine_status(), conversation: view.transpose()? })
}

/// See [`crate::api::send_message`].
///
/// # Errors
/// As there.
pub async fn send_message(command: SendCommand) -> Result<Started, ChatError> {
    let server = server()?;
    let arrived = Instant::now();
    let made = server.commands.once(command.request, carry_out_send(&server, &command, arrived)).await?;
    started(&server, made)
}

/// See [`crate::api::regenerate`].
///
/// # Errors
/// As there.
pub async fn regenerate(command: RegenerateCommand) -> Result<Started, ChatError> {
    let server = server()?;
    let arrived = Instant::now();
    let made = server.commands.once(command.request, carry_out_regenerate(&server, &command, arrived)).await?;
    started(&server, made)
}

/// See [`crate::api::stop`].
///
/// # Errors
/// As there.
pub fn stop(generation: GenerationId) -> Result<(), ChatError> {
    let generation = server()?.generations.get(generation).ok_or_else(|| ChatError::not_found("generation"))?;
    generation.stop();
    Ok(())
}

fn server() -> Result<Arc<Server>, ChatError> {
    use_context::<Arc<Server>>().ok_or_else(|| ChatError::new(ErrorCode::Internal, "the server's state is missing"))
}

/// What a command made, as it stands now.
fn started(server: &Server, made: Made) -> Result<Started, ChatError> {
    let conversations = server.conversations();
    let view = |message| conversations.message(made.place.conversation, message);
    let answer = view(made.place.answer).ok_or_else(|| ChatError::not_found("conversation"))?;
    Ok(Started { message: made.message.and_then(view), answer })
}

async fn carry_out_send(server: &Arc<Server>, command: &SendCommand, arrived: Instant) -> Result<Made, ChatError> {
    let text = MessageText::parse(&command.text)?;
    let ready = server.ready()?;
    check_role(&ready, command.role)?;
    let mut turns = {
        let conversations = server.conversations();
        conversations.check_room(command.conversation, 2)?;
        conversations.turns_before(command.conversation, command.parent)?
    };
    turns.push(Turn { role: command.role, text: text.as_str().to_owned() });
    let ask = Ask { conversation: command.conversation, system: &command.system, settings: &command.settings };
    let admitted = admit(server, &ready, &ask, turns).await?;
    let message = Record {
        id: MessageId::random(),
        parent: command.parent,
        role: command.role,
        text: text.into(),
        created_ms: now_ms(),
        answer: None,
    };
    let (question, answer) = (message.id, MessageId::random());
    let place = begin(server, &ask, admitted, arrived, |record| {
        vec![message, Record { id: answer, parent: Some(question), ..record }]
    })?;
    Ok(Made { message: Some(question), place })
}

async fn carry_out_regenerate(
    server: &Arc<Server>,
    command: &RegenerateCommand,
    arrived: Instant,
) -> Result<Made, ChatError> {
    let ready = server.ready()?;
    let (question, turns) = {
        let conversations = server.conversations();
        conversations.check_room(command.conversation, 1)?;
        conversations.turns_of(command.conversation, command.answer)?
    };
    let ask = Ask { conversation: command.conversation, system: &command.system, settings: &command.settings };
    let admitted = admit(server, &ready, &ask, turns).await?;
    let place = begin(server, &ask, admitted, arrived, |record| vec![Record { parent: Some(question), ..record }])?;
    Ok(Made { message: None, place })
}

/// What both commands ask with.
struct Ask<'a> {
    conversation: ConversationId,
    system: &'a str,
    settings: &'a Settings,
}

/// An answer that the engine has taken on and nobody has recorded yet. Dropped, it is cancelled.
struct Admitted {
    events: worker::Generation,
    prompt_ids: Arc<[u32]>,
    /// What is known of the answer already.
    stats: AnswerStats,
    sampling: Sampling,
    seed: u64,
}

fn check_role(ready: &Ready, role: Role) -> Result<(), ChatError> {
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

async fn admit(
    server: &Arc<Server>,
    ready: &Arc<Ready>,
    ask: &Ask<'_>,
    turns: Vec<Turn>,
) -> Result<Admitted, ChatError> {
    let sampling = ask.settings.resolve(&ready.model.defaults, ready.model.longest_answer)?;
    let seed = ask.settings.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u128() as u64 & MAX_SEED);
    let turns = with_system(ready, ask.system, turns)?;
    let prompt = make_prompt(server, ready, turns, sampling.max_new_tokens).await?;
    // As in the original, a long `max_new_tokens` still leaves the prompt half the context; the answer gets the rest.
    let rest = ready.model.context_length.saturating_sub(prompt.ids.len() as u32).max(1);
    let sampling = Sampling { max_new_tokens: sampling.max_new_tokens.min(rest), ..sampling };
    let prompt_ids: Arc<[u32]> = prompt.ids.into();
    let request = GenerationRequest {
        prompt_ids: prompt_ids.clone(),
        continued_ids: Arc::default(),
        sampling,
        seed,
        ignore_eos: false,
        stop: Vec::new(),
        logprobs: LogprobsRequest::default(),
        scope: CacheScope::Shared(ask.conversation.as_u128()),
    };
    let events = ready.engine.submit(request).map_err(submit_error)?;
    let stats = AnswerStats {
        prompt_tokens: prompt_ids.len() as u32,
        dropped_rounds: prompt.dropped_rounds as u32,
        dropped_system: prompt.dropped_system,
        ..AnswerStats::default()
    };
    Ok(Admitted { events, prompt_ids, stats, sampling, seed })
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

async fn make_prompt(
    server: &Server,
    ready: &Arc<Ready>,
    turns: Vec<Turn>,
    max_new_tokens: u32,
) -> Result<Prompt, ChatError> {
    let room = server.prompts.acquire().await;
    let ready = ready.clone();
    let made = tokio::task::spawn_blocking(move || ready.prompts.build(&turns, max_new_tokens as usize)).await;
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

fn submit_error(error: SubmitError) -> ChatError {
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

/// Records what `records` makes of the answer's record, and lets the generation run, unless the server began to go down
/// meanwhile. Nothing here waits, so a client that goes away in between cannot leave half of it.
fn begin(
    server: &Arc<Server>,
    ask: &Ask<'_>,
    admitted: Admitted,
    arrived: Instant,
    records: impl FnOnce(Record) -> Vec<Record>,
) -> Result<AnswerPlace, ChatError> {
    // Whoever waits for the tasks to end waits for this one from here on.
    let _task = server.tasks.token();
    server.ready()?;
    let id = GenerationId::random();
    let records = records(Record {
        id: MessageId::random(),
        parent: None,
        role: Role::Assistant,
        text: String::new(),
        created_ms: now_ms(),
        answer: Some(AnswerRecord {
            prompt_ids: admitted.prompt_ids,
            token_ids: Vec::new(),
            sampling: admitted.sampling,
            seed: admitted.seed,
            state: AnswerState::Running { generation: id },
            stats: admitted.stats,
            blocks: Vec::new(),
        }),
    });
    let answer = records.last().map(|record| record.id).expect("invariant: the answer is the last record");
    let place = AnswerPlace { conversation: ask.conversation, answer };
    let generation = Arc::new(Generation::new(id, place, admitted.events.canceller()));
    // First known, then recorded: whoever finds the record must find the generation.
    server.generations.insert(generation.clone());
    let forgotten = server.conversations().add(ask.conversation, ask.system, records);
    match forgotten {
        Ok(forgotten) => server.generations.forget(&forgotten),
        Err(error) => {
            server.generations.forget(&[place]);
            return Err(error);
        }
    }
    let Admitted { events, stats, .. } = admitted;
    server.tasks.spawn(run(server.clone(), Begin { generation, events, arrived, stats }));
    Ok(place)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
