//! The wire contract: one server function a command; each body is one call into `server::service`.

#![allow(missing_docs, reason = "the server macro makes structs whose fields it leaves undocumented")]
#![allow(clippy::unused_async, reason = "a server function is async in the browser, whatever the server does")]

use leptos::prelude::*;
use leptos::server_fn::{
    codec::JsonEncoding,
    error::{FromServerFnError, ServerFnErrorErr},
};

use crate::chat::{
    command::{ContinueCommand, RegenerateCommand, SendCommand, Started},
    error::{ChatError, ErrorCode},
    ids::{ConversationId, GenerationId, MessageId},
    info::PageData,
    list::{ChatList, ListQuery, OwnerLink},
};

impl FromServerFnError for ChatError {
    type Encoder = JsonEncoding;

    fn from_server_fn_error(error: ServerFnErrorErr) -> Self {
        match error {
            ServerFnErrorErr::Request(message) => Self::new(ErrorCode::Unreachable, message),
            // A command that the server, or a reply that the page cannot read: the two are of different versions.
            ServerFnErrorErr::Args(message)
            | ServerFnErrorErr::MissingArg(message)
            | ServerFnErrorErr::Deserialization(message) => {
                Self::new(ErrorCode::Malformed, format!("not as expected: {message}"))
            }
            error => Self::new(ErrorCode::Internal, error.to_string()),
        }
    }
}

/// What the page needs to be drawn.
///
/// # Errors
/// [`ErrorCode::NotFound`] where there is no such conversation.
#[server(prefix = "/api", endpoint = "page", input = leptos::server_fn::codec::Json)]
pub async fn page(conversation: Option<ConversationId>) -> Result<PageData, ChatError> {
    crate::server::service::page(conversation).await
}

/// Says something and asks for an answer.
///
/// # Errors
/// Whatever stands against it; nothing was begun then.
#[server(prefix = "/api", endpoint = "send", input = leptos::server_fn::codec::Json)]
pub async fn send_message(command: SendCommand) -> Result<Started, ChatError> {
    crate::server::service::send_message(command).await
}

/// Asks for another answer beside an existing one.
///
/// # Errors
/// Whatever stands against it; nothing was begun then.
#[server(prefix = "/api", endpoint = "regenerate", input = leptos::server_fn::codec::Json)]
pub async fn regenerate(command: RegenerateCommand) -> Result<Started, ChatError> {
    crate::server::service::regenerate(command).await
}

/// Goes on with an answer that ended before it was complete.
///
/// # Errors
/// Whatever stands against it; nothing was begun then.
#[server(prefix = "/api", endpoint = "continue", input = leptos::server_fn::codec::Json)]
pub async fn continue_answer(command: ContinueCommand) -> Result<Started, ChatError> {
    crate::server::service::continue_answer(command).await
}

/// Stops a generation within one step of the engine. Stopping one that is over does nothing.
///
/// # Errors
/// [`ErrorCode::NotFound`] where there is no such generation.
#[server(prefix = "/api", endpoint = "stop", input = leptos::server_fn::codec::Json)]
pub async fn stop(generation: GenerationId) -> Result<(), ChatError> {
    crate::server::service::stop(generation)
}

/// The visitor's conversations, newest first.
///
/// # Errors
/// Where they cannot be read.
#[server(prefix = "/api", endpoint = "chats", input = leptos::server_fn::codec::Json)]
pub async fn chats(query: ListQuery) -> Result<ChatList, ChatError> {
    crate::server::service::chats::list(query).await
}

/// Gives a conversation another title.
///
/// # Errors
/// [`ErrorCode::NotFound`] where there is no such conversation, or what is wrong with the title.
#[server(prefix = "/api", endpoint = "rename", input = leptos::server_fn::codec::Json)]
pub async fn rename(conversation: ConversationId, title: String) -> Result<(), ChatError> {
    crate::server::service::chats::rename(conversation, title).await
}

/// Deletes a conversation and stops what runs in it. For a while it can be restored.
///
/// # Errors
/// [`ErrorCode::NotFound`] where there is no such conversation.
#[server(prefix = "/api", endpoint = "delete", input = leptos::server_fn::codec::Json)]
pub async fn delete(conversation: ConversationId) -> Result<(), ChatError> {
    crate::server::service::chats::delete(conversation).await
}

/// Takes a delete back.
///
/// # Errors
/// [`ErrorCode::NotFound`] where there is no such conversation, or none any more.
#[server(prefix = "/api", endpoint = "restore", input = leptos::server_fn::codec::Json)]
pub async fn restore(conversation: ConversationId) -> Result<(), ChatError> {
    crate::server::service::chats::restore(conversation).await
}

/// Remembers which branch of a conversation is looked at: the one through this message.
///
/// # Errors
/// [`ErrorCode::NotFound`] where there is no such message.
#[server(prefix = "/api", endpoint = "look", input = leptos::server_fn::codec::Json)]
pub async fn look(conversation: ConversationId, message: MessageId) -> Result<(), ChatError> {
    crate::server::service::chats::look(conversation, message).await
}

/// Makes a link by which another device gets at the visitor's conversations.
///
/// # Errors
/// Where it cannot be kept.
#[server(name = MakeOwnerLink, prefix = "/api", endpoint = "owner-link", input = leptos::server_fn::codec::Json)]
pub async fn owner_link() -> Result<OwnerLink, ChatError> {
    crate::server::service::links::owner_link().await
}

/// Lets this device get at the conversations of the one that made the link; those of this device come along.
///
/// # Errors
/// [`ErrorCode::NotFound`] where there is no such link, or none any more.
#[server(prefix = "/api", endpoint = "take-link", input = leptos::server_fn::codec::Json)]
pub async fn take_link(code: String) -> Result<(), ChatError> {
    crate::server::service::links::take_link(code).await
}
