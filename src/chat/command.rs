//! Commands of the page: what each server function takes and gives back.

use serde::{Deserialize, Serialize};

use super::{
    ids::{ConversationId, MessageId, RequestId},
    message::{MessageView, Role},
    settings::Settings,
};

/// Says something and asks for an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SendCommand {
    /// Made by the page; the same request twice is carried out once.
    pub request: RequestId,
    /// Where; a conversation of this name is begun where there is none yet.
    pub conversation: ConversationId,
    /// The message it follows, `None` for a first one.
    pub parent: Option<MessageId>,
    /// [`Role::User`] or [`Role::Exec`].
    pub role: Role,
    /// What is said, as typed; the server makes a [`super::message::MessageText`] of it, and says what is wrong with it.
    pub text: String,
    /// The conversation's system prompt from here on, empty for none.
    pub system: String,
    /// What was changed from the defaults.
    pub settings: Settings,
}

/// Asks for another answer beside an existing one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegenerateCommand {
    /// Made by the page; the same request twice is carried out once.
    pub request: RequestId,
    /// Where.
    pub conversation: ConversationId,
    /// The answer that gets a sibling.
    pub answer: MessageId,
    /// The conversation's system prompt from here on, empty for none.
    pub system: String,
    /// What was changed from the defaults.
    pub settings: Settings,
}

/// Goes on with an answer that ended before it was complete, from its exact token ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContinueCommand {
    /// Made by the page; the same request twice is carried out once.
    pub request: RequestId,
    /// Where.
    pub conversation: ConversationId,
    /// The answer, after which nothing has been said yet.
    pub answer: MessageId,
    /// Most tokens to add, absent for the checkpoint's default; everything else stays as it was.
    pub max_new_tokens: Option<u32>,
}

/// A generation has begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The person's message, `None` after a regenerate or a continue.
    pub message: Option<MessageView>,
    /// The answer that is now running.
    pub answer: MessageView,
    /// Whether this is kept beyond the server's end; where it is not, the answer comes all the same.
    pub is_saved: bool,
}
