//! The one error that people and programs see: a stable code and a sentence.
//!
//! Internals never reach it: paths, traces and library texts go to the log.

use serde::{Deserialize, Serialize};

/// What went wrong, stable across versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// A message without text.
    MessageEmpty,
    /// A message of more bytes than the limit.
    MessageTooLong,
    /// The newest message alone, or a text to go on with, does not fit the context.
    PromptTooLong,
    /// A sampling value outside its bounds.
    SettingOutOfRange,
    /// The prompt format has no such role.
    RoleUnsupported,
    /// No such conversation, message or generation.
    NotFound,
    /// The command does not fit the state, such as two answers at once to one message.
    Conflict,
    /// The conversation has as many messages as it may.
    ConversationFull,
    /// There are as many conversations as one may have.
    TooManyConversations,
    /// As many answers run or wait as one may have at once.
    TooManyAnswers,
    /// Asked more often than one may.
    TooManyRequests,
    /// An answer cannot be continued by a model that did not begin it.
    OtherModel,
    /// The access token is missing or wrong.
    AccessDenied,
    /// As many requests wait as may.
    QueueFull,
    /// The model is still being loaded.
    ModelLoading,
    /// The server is shutting down.
    ShuttingDown,
    /// A step of the engine failed; it has been restarted.
    EngineRestarted,
    /// A step of the engine takes far longer than steps do.
    EngineStalled,
    /// No upstream server could be reached, or all that could had too much to do.
    UpstreamUnreachable,
    /// An upstream server refused whoever asked, or knows neither address nor model.
    UpstreamRefused,
    /// An upstream server does not take the request as it is.
    UpstreamRejected,
    /// An upstream server failed, broke off, or sent what cannot be understood.
    UpstreamBroke,
    /// The model gave numbers that are none.
    NotANumber,
    /// The request could not be read.
    Malformed,
    /// The network or the server could not be reached.
    Unreachable,
    /// Anything else: a defect on our side.
    Internal,
}

impl ErrorCode {
    /// The HTTP status that carries this code.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::MessageEmpty
            | Self::MessageTooLong
            | Self::PromptTooLong
            | Self::SettingOutOfRange
            | Self::RoleUnsupported => 422,
            Self::Malformed | Self::UpstreamRejected => 400,
            Self::AccessDenied => 401,
            Self::NotFound => 404,
            Self::Conflict | Self::ConversationFull | Self::TooManyConversations | Self::OtherModel => 409,
            Self::TooManyAnswers | Self::TooManyRequests => 429,
            Self::QueueFull
            | Self::ModelLoading
            | Self::ShuttingDown
            | Self::EngineStalled
            | Self::UpstreamUnreachable => 503,
            Self::UpstreamRefused | Self::UpstreamBroke => 502,
            Self::EngineRestarted | Self::NotANumber | Self::Unreachable | Self::Internal => 500,
        }
    }
}

/// A refusal or failure in words that can be shown as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ChatError {
    /// The stable code.
    pub code: ErrorCode,
    /// Lowercase, the bound and the value, no full stop.
    pub message: String,
    /// Seconds after which trying again makes sense.
    pub retry_after_s: Option<u32>,
}

impl ChatError {
    /// An error without a time to try again.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_s: None }
    }

    /// The same error, with a time after which trying again makes sense.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// No such thing, or not yours: the two are never told apart.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("no such {what}"))
    }
}
