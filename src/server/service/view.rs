//! What the page gets to see of what is kept.
//!
//! Answers are parsed when somebody looks at them, off the threads that serve.

use std::sync::Arc;

use crate::{
    chat::{
        command::Started,
        error::{ChatError, ErrorCode},
        ids::ConversationId,
        info::ConversationView,
        message::{AnswerState, AnswerView, MessageView},
    },
    server::{library::Seen, memory::Kept, state::Server},
    storage::record::{Made, Owner},
};

/// One conversation.
pub(super) async fn conversation(
    server: &Arc<Server>,
    owner: Owner,
    id: ConversationId,
) -> Result<ConversationView, ChatError> {
    let Seen { head, messages, is_saved } = server.library.see(owner, id).await?;
    let messages = views(server, owner, messages, Events::OfRunning).await?;
    Ok(ConversationView { id, title: head.title, system: head.system, messages, leaf: head.leaf, is_saved })
}

/// What a command made, as it stands now. The answer's events are named even where it is over already: whoever asked for
/// it reads them.
pub(super) async fn started(server: &Arc<Server>, owner: Owner, made: Made) -> Result<Started, ChatError> {
    let Seen { messages, is_saved, .. } = server.library.see(owner, made.conversation).await?;
    let wanted = |kept: &Arc<Kept>| kept.message.id == made.answer || Some(kept.message.id) == made.message;
    let mut views = views(server, owner, messages.into_iter().filter(wanted).collect(), Events::OfKnown).await?;
    // Parents come before children.
    let answer = views.pop().ok_or_else(|| ChatError::not_found("conversation"))?;
    Ok(Started { message: views.pop(), answer, is_saved })
}

/// Which answers are given as running, so that their events are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Events {
    /// Those that run.
    OfRunning,
    /// All whose events are still known.
    OfKnown,
}

async fn views(
    server: &Arc<Server>,
    owner: Owner,
    messages: Vec<Arc<Kept>>,
    events: Events,
) -> Result<Vec<MessageView>, ChatError> {
    let server = server.clone();
    let made =
        tokio::task::spawn_blocking(move || messages.iter().map(|kept| view(&server, owner, kept, events)).collect());
    made.await.map_err(|error| {
        tracing::error!(%error, "a conversation could not be drawn");
        ChatError::new(ErrorCode::Internal, "the conversation could not be drawn")
    })
}

fn view(server: &Server, owner: Owner, kept: &Kept, events: Events) -> MessageView {
    let message = &kept.message;
    let plain = MessageView {
        id: message.id,
        parent: message.parent,
        role: message.role,
        created_ms: message.created_ms,
        text: message.text.clone(),
        blocks: Vec::new(),
        answer: None,
    };
    let Some(answer) = &message.answer else { return plain };
    let known = || server.generations.get(owner, answer.generation);
    let generation = if answer.end.is_none() || events == Events::OfKnown { known() } else { None };
    let (text, blocks, state) = if let (Some(reason), None) = (answer.end, &generation) {
        (plain.text, kept.blocks().to_vec(), AnswerState::Ended { reason })
    } else {
        let so_far = generation.map(|generation| generation.so_far()).unwrap_or_default();
        let state = AnswerState::Running { generation: answer.generation, seq: so_far.seq, tail: so_far.tail };
        (String::new(), so_far.blocks, state)
    };
    let answer = AnswerView { state, stats: answer.stats, sampling: answer.sampling, seed: answer.seed };
    MessageView { text, blocks, answer: Some(answer), ..plain }
}
