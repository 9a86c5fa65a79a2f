//! The wire contract: one server function a command; each body is one call into `server::service`.

#![allow(missing_docs, reason = "the server macro makes structs whose fields it leaves undocumented")]
#![allow(clippy::unused_async, reason = "a server function is async in the browser, whatever the server does")]

use leptos::prelude::*;
use leptos::server_fn::{
    codec::JsonEncoding,
    error::{FromServerFnError, ServerFnErrorErr},
};

use crate::chat::{
    command::{RegenerateCommand, SendCommand, Started},
    error::{ChatError, ErrorCode},
    ids::{ConversationId, GenerationId},
    info::PageData,
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
    crate::server::service::page(conversation)
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

/// Stops a generation within one step of the engine. Stopping one that is over does nothing.
///
/// # Errors
/// [`ErrorCode::NotFound`] where there is no such generation.
#[server(prefix = "/api", endpoint = "stop", input = leptos::server_fn::codec::Json)]
pub async fn stop(generation: GenerationId) -> Result<(), ChatError> {
    crate::server::service::stop(generation)
}
