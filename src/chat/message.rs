//! One message: who speaks, what is said, and for an answer how it came to be.
//!
//! Knows nothing of trees (`conversation`) or of how an answer travels while it grows (`event`).

use serde::{Deserialize, Serialize};

use super::{
    error::{ChatError, ErrorCode},
    event::EndReason,
    ids::{GenerationId, MessageId},
    limits::MAX_MESSAGE_BYTES,
    markup::Block,
    settings::Sampling,
};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sets the scene; at the beginning only.
    System,
    /// The person.
    User,
    /// The result of a tool call, given back by the person.
    Exec,
    /// The model.
    Assistant,
}

/// A message's text: not blank, at most [`MAX_MESSAGE_BYTES`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MessageText(String);

impl MessageText {
    /// Checks a text that a person typed; it is kept as typed.
    ///
    /// # Errors
    /// [`ErrorCode::MessageEmpty`] where it is blank, [`ErrorCode::MessageTooLong`] over the limit.
    pub fn parse(text: &str) -> Result<Self, ChatError> {
        if Self::is_blank(text) {
            return Err(ChatError::new(ErrorCode::MessageEmpty, "the message is empty"));
        }
        if text.len() > MAX_MESSAGE_BYTES {
            return Err(ChatError::new(
                ErrorCode::MessageTooLong,
                format!("the message has {} bytes, at most {MAX_MESSAGE_BYTES} are allowed", text.len()),
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether there is nothing to be seen of a text: only white space and control characters.
    #[must_use]
    pub fn is_blank(text: &str) -> bool {
        text.chars().all(|c| c.is_whitespace() || c.is_control())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MessageText {
    type Error = ChatError;

    fn try_from(text: String) -> Result<Self, ChatError> {
        Self::parse(&text)
    }
}

impl From<MessageText> for String {
    fn from(text: MessageText) -> Self {
        text.0
    }
}

/// Where an answer stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerState {
    /// Being generated; its events are at `/generations/{generation}/events`.
    Running {
        /// Which generation.
        generation: GenerationId,
        /// The last event that the message's blocks and `tail` cover, 0 where there is no text yet.
        seq: u64,
        /// What stands after the final blocks, to be replaced.
        tail: Vec<Block>,
    },
    /// Over, for this reason.
    Ended {
        /// Why.
        reason: EndReason,
    },
}

/// Counts and times of one answer, as they are shown under it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct AnswerStats {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Prompt tokens whose keys and values were still there from an earlier turn.
    pub reused_tokens: u32,
    /// Tokens generated, the end token not counted.
    pub generated_tokens: u32,
    /// From the command's arrival to the first token, in milliseconds.
    pub first_token_ms: f32,
    /// Generated tokens a second, after the first.
    pub tokens_per_second: f32,
    /// Rounds of the conversation that did not fit the context and were left out of the prompt.
    pub dropped_rounds: u32,
    /// Whether the system prompt did not fit either.
    pub dropped_system: bool,
}

/// One message as the page gets it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageView {
    /// Its name.
    pub id: MessageId,
    /// The message before it, `None` for a first one.
    pub parent: Option<MessageId>,
    /// Who speaks.
    pub role: Role,
    /// Unix time in milliseconds.
    pub created_ms: u64,
    /// The text; of a running answer empty, it is in its blocks and events.
    pub text: String,
    /// The text as blocks, of a running answer those that are final; of a person's message none, it is shown as typed.
    pub blocks: Vec<Block>,
    /// Of an answer: its state, counts, sampling and seed.
    pub answer: Option<AnswerView>,
}

/// The part of a [`MessageView`] that only an answer has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerView {
    /// Running, or why it ended.
    pub state: AnswerState,
    /// Counts and times: of the prompt from the beginning, of the answer once it has ended.
    pub stats: AnswerStats,
    /// What it was sampled with.
    pub sampling: Sampling,
    /// What it was seeded with.
    pub seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_message_is_refused() {
        for text in ["", " ", "\n\t ", "\u{3000}", "\0", "\u{1b}\u{85}\u{7f}"] {
            assert_eq!(MessageText::parse(text).unwrap_err().code, ErrorCode::MessageEmpty);
        }
    }

    #[test]
    fn a_message_may_be_as_long_as_the_limit_and_no_longer() {
        assert!(MessageText::parse(&"a".repeat(MAX_MESSAGE_BYTES)).is_ok());
        let error = MessageText::parse(&"a".repeat(MAX_MESSAGE_BYTES + 1)).unwrap_err();
        assert_eq!(error.code, ErrorCode::MessageTooLong);
        assert!(error.message.contains("65537") && error.message.contains("65536"), "{error}");
    }
}
