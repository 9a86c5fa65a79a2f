//! What is kept of a conversation, as plain values.
//!
//! The same records are kept in memory by the server while a conversation is in use. Knows nothing of tables.

use std::sync::Arc;

use crate::chat::{
    conversation::Node,
    event::EndReason,
    ids::{ConversationId, GenerationId, MessageId, RequestId},
    message::{AnswerStats, Role},
    settings::Sampling,
};

/// Whose something is: 128 bits that nobody outside the server ever sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(pub u128);

/// A conversation without its messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Its name.
    pub id: ConversationId,
    /// What it is called.
    pub title: String,
    /// The system prompt, empty for none.
    pub system: String,
    /// The newest message of the branch that is looked at.
    pub leaf: Option<MessageId>,
    /// When something last happened, Unix time in milliseconds.
    pub updated_ms: u64,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// All but its messages.
    pub head: Head,
    /// All messages, parents before children.
    pub messages: Vec<Message>,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its name.
    pub id: MessageId,
    /// The message before it.
    pub parent: Option<MessageId>,
    /// Who speaks.
    pub role: Role,
    /// The text; of a running answer as far as it was last written.
    pub text: String,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// What only an answer has.
    pub answer: Option<Answer>,
}

/// How an answer came to be: enough to make it again, and to go on with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The generation that writes it, or wrote it last.
    pub generation: GenerationId,
    /// Token ids of the prompt; of a complete answer that was read from storage none.
    pub prompt_ids: Arc<[u32]>,
    /// Token ids that were generated, as far as they were last written.
    pub token_ids: Vec<u32>,
    /// What it was sampled with.
    pub sampling: Sampling,
    /// What it was seeded with.
    pub seed: u64,
    /// SHA-256 that names the checkpoint.
    pub weights: [u8; 32],
    /// Counts and times: of the prompt from the beginning, of the answer once it has ended.
    pub stats: AnswerStats,
    /// Why it ended, `None` while it runs.
    pub end: Option<EndReason>,
}

/// How far a running answer has come, or how it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Which answer.
    pub answer: MessageId,
    /// The generation that writes it: one that was continued since is left alone.
    pub generation: GenerationId,
    /// The text so far.
    pub text: String,
    /// The token ids so far.
    pub token_ids: Vec<u32>,
    /// The last event that this covers.
    pub seq: u64,
    /// Counts and times so far.
    pub stats: AnswerStats,
    /// Why it ended, `None` while it runs.
    pub end: Option<EndReason>,
}

/// A command that was carried out, so that it is not carried out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Its name.
    pub request: RequestId,
    /// What it made.
    pub made: Made,
}

/// What a command made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Where.
    pub conversation: ConversationId,
    /// The person's message, where it made one.
    pub message: Option<MessageId>,
    /// The answer.
    pub answer: MessageId,
}

/// SHA-256 of a secret: of the cookie that names an owner, or of a link's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash(pub [u8; 32]);

impl Node for Message {
    fn id(&self) -> MessageId {
        self.id
    }

    fn parent(&self) -> Option<MessageId> {
        self.parent
    }
}

impl Message {
    /// Whether it is an answer that is being written.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.end.is_none())
    }
}
