//! The commands, carried out.
//!
//! Order of a send: check, make the prompt, be admitted by the engine, record, and only then answer; so a refusal leaves
//! nothing behind, and what was answered is kept. Knows nothing of HTTP.

pub mod chats;
pub mod links;
pub mod once;

pub(super) mod ask;

mod view;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use leptos::prelude::use_context;

use self::ask::{Admitted, Ask, admit, admit_again, check_role};
use super::{
    clock,
    generations::{
        AnswerPlace, Generation,
        run::{Begin, run},
    },
    library::Saying,
    rates::Slot,
    session::{self, Visitor},
    state::Server,
};
use crate::{
    chat::{
        command::{ContinueCommand, RegenerateCommand, SendCommand, Started},
        error::{ChatError, ErrorCode},
        event::EndReason,
        ids::{ConversationId, GenerationId, MessageId, RequestId},
        info::PageData,
        list::{ListQuery, made_title},
        message::{MessageText, Role},
    },
    engine::prompt::Turn,
    render::Growing,
    storage::record::{Answer, Command, Made, Message, Owner},
};

/// See [`crate::api::page`].
///
/// # Errors
/// As there.
pub async fn page(conversation: Option<ConversationId>) -> Result<PageData, ChatError> {
    let (server, visitor) = here()?;
    page_of(&server, visitor, conversation).await
}

/// What the page of this visitor needs to be drawn.
///
/// # Errors
/// [`ErrorCode::NotFound`] where the visitor has no such conversation.
pub async fn page_of(
    server: &Arc<Server>,
    visitor: Visitor,
    conversation: Option<ConversationId>,
) -> Result<PageData, ChatError> {
    let conversation = match conversation {
        Some(id) => Some(view::conversation(server, visitor.owner, id).await?),
        None => None,
    };
    let chats = server.library.list(visitor.owner, ListQuery::default()).await?;
    Ok(PageData { title: server.title.clone(), engine: server.engine_status(), chats, conversation })
}

/// See [`crate::api::send_message`].
///
/// # Errors
/// As there.
pub async fn send_message(command: SendCommand) -> Result<Started, ChatError> {
    let (request, arrived) = (command.request, Instant::now());
    once(request, async move |server, visitor| carry_out_send(&server, visitor, &command, arrived).await).await
}

/// See [`crate::api::regenerate`].
///
/// # Errors
/// As there.
pub async fn regenerate(command: RegenerateCommand) -> Result<Started, ChatError> {
    let (request, arrived) = (command.request, Instant::now());
    once(request, async move |server, visitor| carry_out_regenerate(&server, visitor, &command, arrived).await).await
}

/// See [`crate::api::continue_answer`].
///
/// # Errors
/// As there.
pub async fn continue_answer(command: ContinueCommand) -> Result<Started, ChatError> {
    let (request, arrived) = (command.request, Instant::now());
    once(request, async move |server, visitor| carry_out_continue(&server, visitor, &command, arrived).await).await
}

/// See [`crate::api::stop`].
///
/// # Errors
/// As there.
pub fn stop(generation: GenerationId) -> Result<(), ChatError> {
    let (server, visitor) = here()?;
    let generation = server.generations.get(visitor.owner, generation);
    generation.ok_or_else(|| ChatError::not_found("generation"))?.stop();
    Ok(())
}

/// The server, and who sent it the command that is being carried out.
fn here() -> Result<(Arc<Server>, Visitor), ChatError> {
    let server = use_context::<Arc<Server>>()
        .ok_or_else(|| ChatError::new(ErrorCode::Internal, "the server's state is missing"))?;
    let visitor = session::visitor()?;
    server.requests.take(&visitor.owner, Instant::now()).map_err(too_often)?;
    Ok((server, visitor))
}

/// Carries a command out to its end, also where whoever sent it has gone, and once, however often it is sent.
async fn once<F>(
    request: RequestId,
    work: impl FnOnce(Arc<Server>, Visitor) -> F + Send + 'static,
) -> Result<Started, ChatError>
where
    F: Future<Output = Result<Made, ChatError>> + Send,
{
    let (server, visitor) = here()?;
    let at_work = server.clone();
    let carried_out = tokio::spawn(async move {
        let work = async {
            // Perhaps before the program was started again.
            if let Some(made) = at_work.library.carried_out(visitor.owner, request).await {
                return Ok(made);
            }
            at_work.asked.take(&visitor.owner, Instant::now()).map_err(too_often)?;
            work(at_work.clone(), visitor).await
        };
        at_work.commands.once((visitor.owner, request), work).await
    });
    let made = carried_out.await.map_err(|error| {
        tracing::error!(%error, "a command broke off");
        ChatError::new(ErrorCode::Internal, "the command broke off")
    })??;
    view::started(&server, visitor.owner, made).await
}

fn too_often(wait: Duration) -> ChatError {
    let seconds = wait.as_secs() as u32 + 1;
    ChatError::new(ErrorCode::TooManyRequests, "asked more often than is allowed").retry_after(seconds)
}

async fn carry_out_send(
    server: &Arc<Server>,
    visitor: Visitor,
    command: &SendCommand,
    arrived: Instant,
) -> Result<Made, ChatError> {
    let text = MessageText::parse(&command.text)?;
    let ready = server.ready()?;
    check_role(&ready, command.role)?;
    let (owner, id) = (visitor.owner, command.conversation);
    let mut turns = turns_before(server, visitor, id, command.parent).await?;
    let slot = slot(server, owner)?;
    turns.push(Turn { role: command.role, text: text.as_str().to_owned() });
    let ask = Ask { conversation: id, system: &command.system, settings: &command.settings };
    let admitted = admit(server, &ready, &ask, turns).await?;
    let title = made_title(text.as_str());
    let question = Message {
        id: MessageId::random(),
        parent: command.parent,
        role: command.role,
        text: text.into(),
        created_ms: clock::now_ms(),
        answer: None,
    };
    let answer = answer(&admitted, *ready.fingerprint.as_bytes(), MessageId::random(), question.id);
    let made = Made { conversation: id, message: Some(question.id), answer: answer.id };
    let command = Command { request: command.request, made };
    let saying = Saying { owner, id, title, system: ask.system.to_owned(), messages: vec![question, answer], command };
    begin(server, saying, admitted, arrived, slot).await?;
    Ok(made)
}

/// The branch that a new message would follow, as turns.
async fn turns_before(
    server: &Server,
    Visitor { owner, address, .. }: Visitor,
    id: ConversationId,
    parent: Option<MessageId>,
) -> Result<Vec<Turn>, ChatError> {
    match (server.library.open(owner, id).await?, parent) {
        (true, parent) => {
            let turns = server.library.with(owner, id, |conversation| {
                conversation.check_room(2)?;
                parent.map_or_else(|| Ok(Vec::new()), |parent| conversation.turns_before(parent))
            });
            turns.await?
        }
        (false, None) => {
            let count = server.library.check_count(owner).await?;
            if let (0, Some(address)) = (count, address) {
                // Whoever throws the cookie away is a newcomer each time.
                server.newcomers.take(&address, Instant::now()).map_err(too_often)?;
            }
            Ok(Vec::new())
        }
        (false, Some(_)) => Err(ChatError::not_found("message")),
    }
}

async fn carry_out_regenerate(
    server: &Arc<Server>,
    visitor: Visitor,
    command: &RegenerateCommand,
    arrived: Instant,
) -> Result<Made, ChatError> {
    let ready = server.ready()?;
    let (owner, id) = (visitor.owner, command.conversation);
    let found = server.library.with(owner, id, |conversation| {
        let found = conversation.turns_of(command.answer)?;
        conversation.check_room(1)?;
        Ok::<_, ChatError>((found, conversation.head.title.clone()))
    });
    let ((question, turns), title) = found.await??;
    let slot = slot(server, owner)?;
    let ask = Ask { conversation: id, system: &command.system, settings: &command.settings };
    let admitted = admit(server, &ready, &ask, turns).await?;
    let answer = answer(&admitted, *ready.fingerprint.as_bytes(), MessageId::random(), question);
    let made = Made { conversation: id, message: None, answer: answer.id };
    let command = Command { request: command.request, made };
    let saying = Saying { owner, id, title, system: ask.system.to_owned(), messages: vec![answer], command };
    begin(server, saying, admitted, arrived, slot).await?;
    Ok(made)
}

async fn carry_out_continue(
    server: &Arc<Server>,
    visitor: Visitor,
    command: &ContinueCommand,
    arrived: Instant,
) -> Result<Made, ChatError> {
    let ready = server.ready()?;
    let (owner, id) = (visitor.owner, command.conversation);
    let found = server.library.with(owner, id, |conversation| {
        let message = conversation.unfinished(command.answer)?;
        Ok::<_, ChatError>((message, conversation.head()))
    });
    let (message, head) = found.await??;
    let Some(before) = &message.answer else { return Err(ChatError::not_found("answer")) };
    if matches!(before.end, Some(EndReason::EndOfText | EndReason::StopString)) {
        return Err(ChatError::new(ErrorCode::Conflict, "the answer is complete"));
    }
    let slot = slot(server, owner)?;
    let admitted = admit_again(&ready, id, before, command.max_new_tokens)?;
    let parent = message.parent.ok_or_else(|| ChatError::not_found("answer"))?;
    let mut answer = answer(&admitted, before.weights, message.id, parent);
    answer.created_ms = message.created_ms;
    let made = Made { conversation: id, message: None, answer: answer.id };
    let command = Command { request: command.request, made };
    let saying = Saying { owner, id, title: head.title, system: head.system, messages: vec![answer], command };
    begin(server, saying, admitted, arrived, slot).await?;
    Ok(made)
}

fn slot(server: &Server, owner: Owner) -> Result<Slot<Owner>, ChatError> {
    server.answers.take(owner).ok_or_else(|| {
        let limit = server.limits.answers_per_owner;
        let message =
            format!("{limit} answers are being written, as many as one may have at once; wait for one of them");
        ChatError::new(ErrorCode::TooManyAnswers, message).retry_after(5)
    })
}

/// The record of an answer that is about to be written.
fn answer(admitted: &Admitted, weights: [u8; 32], id: MessageId, question: MessageId) -> Message {
    Message {
        id,
        parent: Some(question),
        role: Role::Assistant,
        text: admitted.text.clone(),
        created_ms: clock::now_ms(),
        answer: Some(Answer {
            generation: GenerationId::random(),
            prompt_ids: admitted.prompt_ids.clone(),
            token_ids: admitted.token_ids.clone(),
            sampling: admitted.sampling,
            seed: admitted.seed,
            weights,
            stats: admitted.stats,
            end: None,
        }),
    }
}

/// Records what is said, and lets the generation run, unless the server began to go down meanwhile.
async fn begin(
    server: &Arc<Server>,
    saying: Saying,
    admitted: Admitted,
    arrived: Instant,
    slot: Slot<Owner>,
) -> Result<(), ChatError> {
    // Whoever waits for the tasks to end waits for this one from here on.
    let task = server.tasks.token();
    server.ready()?;
    let place = AnswerPlace { owner: saying.owner, conversation: saying.id, answer: saying.command.made.answer };
    let id = saying.messages.last().and_then(|message| message.answer.as_ref()).map(|answer| answer.generation);
    let id = id.expect("invariant: the answer is the last of what is said");
    let generation = Arc::new(Generation::new(id, place, admitted.events.canceller()));
    let mut growing = Growing::default();
    if !admitted.text.is_empty() {
        let update = growing.push(&admitted.text);
        generation.grow(update.finished, update.tail);
    }
    // First known, then recorded: whoever finds the record must find the generation.
    server.generations.insert(generation.clone());
    let recorded = server.library.say(saying).await;
    if recorded.is_err() {
        server.generations.forget(id);
    }
    recorded?;
    let Admitted { events, stats, token_ids, .. } = admitted;
    server.tasks.spawn(run(server.clone(), Begin { generation, events, arrived, stats, growing, token_ids, slot }));
    drop(task);
    Ok(())
}
