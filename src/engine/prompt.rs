//! A conversation to token ids, exactly as XVERSE's own `chat` does it.

use std::sync::Arc;

use super::{config::ModelConfig, tokenizer::ChatTokenizer};
use crate::chat::{info::PromptFormat, message::Role};

/// One turn of a conversation, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub text: String,
}

/// A prompt and what was left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The token ids.
    pub ids: Vec<u32>,
    /// Indices of the turns that did not fit and were left out whole.
    pub dropped_turns: Vec<usize>,
    /// How many rounds (a question and its answer) those were.
    pub dropped_rounds: usize,
}

/// Why no prompt can be made.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The newest message alone is too long; it is never cut.
    #[error("the message has {tokens} tokens, at most {limit} fit beside the answer")]
    NewestTooLong {
        /// Tokens of the newest message with its role marks.
        tokens: usize,
        /// How many fit.
        limit: usize,
    },
    /// The prompt format cannot write this role, or not at this place.
    #[error("{0}")]
    Role(String),
    /// The tokenizer failed.
    #[error(transparent)]
    Tokenizer(#[from] super::tokenizer::TokenizerError),
}

/// Makes prompts of one format.
#[derive(Debug, Clone)]
pub struct PromptBuilder {
    /// The format.
    pub format: PromptFormat,
    tokenizer: Arc<ChatTokenizer>,
}

impl PromptBuilder {
    /// A builder with the context, truncation and end id that `config` states.
    #[must_use]
    pub fn new(tokenizer: Arc<ChatTokenizer>, config: &ModelConfig, format: PromptFormat) -> Self {
        let _ = config;
        Self { format, tokenizer }
    }

    /// The format that `auto` means for a checkpoint: v1 for a vocabulary of 100,278, else v2.
    #[must_use]
    pub fn auto_format(config: &ModelConfig) -> PromptFormat {
        todo!("{config:?}")
    }

    /// The prompt for an answer of up to `max_new_tokens` to the last of `turns`.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn build(&self, turns: &[Turn], max_new_tokens: usize) -> Result<Prompt, PromptError> {
        todo!("{turns:?} {max_new_tokens} {:?}", self.tokenizer)
    }
}
