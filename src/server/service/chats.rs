//! The list of a visitor's conversations, and what can be done to one as a whole.

use super::here;
use crate::chat::{
    error::{ChatError, ErrorCode},
    ids::{ConversationId, MessageId},
    limits::MAX_SEARCH_CHARS,
    list::{ChatList, ListQuery, chosen_title},
};

/// See [`crate::api::chats`].
///
/// # Errors
/// As there.
pub async fn list(query: ListQuery) -> Result<ChatList, ChatError> {
    let (server, visitor) = here()?;
    let n_chars = query.search.chars().count();
    if n_chars > MAX_SEARCH_CHARS {
        return Err(ChatError::new(
            ErrorCode::MessageTooLong,
            format!("what is searched for has {n_chars} characters, at most {MAX_SEARCH_CHARS} are allowed"),
        ));
    }
    server.library.list(visitor.owner, query).await
}

/// See [`crate::api::rename`].
///
/// # Errors
/// As there.
pub async fn rename(conversation: ConversationId, title: String) -> Result<(), ChatError> {
    let (server, visitor) = here()?;
    server.library.rename(visitor.owner, conversation, chosen_title(&title)?).await
}

/// See [`crate::api::delete`].
///
/// # Errors
/// As there.
pub async fn delete(conversation: ConversationId) -> Result<(), ChatError> {
    let (server, visitor) = here()?;
    let messages = server.library.delete(visitor.owner, conversation).await?;
    let answers = messages.iter().filter_map(|kept| kept.message.answer.as_ref());
    for answer in answers.filter(|answer| answer.end.is_none()) {
        if let Some(generation) = server.generations.get(visitor.owner, answer.generation) {
            generation.stop();
        }
    }
    Ok(())
}

/// See [`crate::api::restore`].
///
/// # Errors
/// As there.
pub async fn restore(conversation: ConversationId) -> Result<(), ChatError> {
    let (server, visitor) = here()?;
    server.library.restore(visitor.owner, conversation).await
}

/// See [`crate::api::look`].
///
/// # Errors
/// As there.
pub async fn look(conversation: ConversationId, message: MessageId) -> Result<(), ChatError> {
    let (server, visitor) = here()?;
    server.library.look(visitor.owner, conversation, message).await
}
