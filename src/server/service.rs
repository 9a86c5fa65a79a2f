//! The commands, carried out.

use crate::chat::{
    command::{RegenerateCommand, SendCommand, Started},
    error::ChatError,
    ids::{ConversationId, GenerationId},
    info::PageData,
};

/// See [`crate::api::page`].
///
/// # Errors
/// As there.
pub async fn page(conversation: Option<ConversationId>) -> Result<PageData, ChatError> {
    todo!("{conversation:?}")
}

/// See [`crate::api::send`].
///
/// # Errors
/// As there.
pub async fn send_message(command: SendCommand) -> Result<Started, ChatError> {
    todo!("{command:?}")
}

/// See [`crate::api::regenerate`].
///
/// # Errors
/// As there.
pub async fn regenerate(command: RegenerateCommand) -> Result<Started, ChatError> {
    todo!("{command:?}")
}

/// See [`crate::api::stop`].
///
/// # Errors
/// As there.
pub async fn stop(generation: GenerationId) -> Result<(), ChatError> {
    todo!("{generation}")
}
