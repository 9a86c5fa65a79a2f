//! A conversation to token ids, exactly as XVERSE's own `chat` does it.
//!
//! Both formats walk from the newest turn to the oldest and take whole rounds, a question with what follows it, until one
//! does not fit; what is older than that one stays out too, be it smaller. A system turn is the oldest, so it goes first.
//! Where the original cuts a newest message that is too long, this refuses it. It knows no storage and no page.
//! **Architecture Invariant:** the end id is the only control token in a prompt, once after each answer.

use std::sync::Arc;

use super::{config::ModelConfig, detokenizer::Detokenizer, tokenizer::ChatTokenizer};
use crate::chat::{info::PromptFormat, message::Role, settings::Sampling};

/// One turn of a conversation, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub text: String,
}

impl Turn {
    /// What sets the scene; only the first turn may, and only where the model's prompt format has it.
    #[must_use]
    pub fn system(text: impl Into<String>) -> Self {
        Self { role: Role::System, text: text.into() }
    }

    /// What a person says.
    #[must_use]
    pub fn user(text: impl Into<String>) -> Self {
        Self { role: Role::User, text: text.into() }
    }

    /// What the model said.
    #[must_use]
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: Role::Assistant, text: text.into() }
    }

    /// The result of a tool call, where the model's prompt format has such turns.
    #[must_use]
    pub fn exec(text: impl Into<String>) -> Self {
        Self { role: Role::Exec, text: text.into() }
    }
}

/// A prompt and what was left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The token ids.
    pub ids: Vec<u32>,
    /// Indices of the turns that did not fit and were left out whole: always the oldest, a system turn among them.
    pub dropped_turns: Vec<usize>,
    /// How many rounds (a question and its answer) those were.
    pub dropped_rounds: usize,
    /// Whether a system turn was among them: it is, as soon as anything is.
    pub dropped_system: bool,
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
    /// The prompt format cannot write this role.
    #[error("prompt format {format:?} has no {role:?} messages")]
    Role {
        /// The role.
        role: Role,
        /// The format.
        format: PromptFormat,
    },
    /// A system turn that is not the first.
    #[error("message {index} is a system message, only the first (0) may be one")]
    SystemNotFirst {
        /// Its index.
        index: usize,
    },
    /// The conversation does not end with something to answer.
    #[error("the conversation has no message to answer at its end")]
    NothingToAnswer,
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
    max_positions: usize,
    max_truncation: Option<usize>,
    eos_token_id: u32,
}

/// XVERSE-13B-Chat of August 2023 is the only model with this vocabulary.
const V1_VOCAB_SIZE: usize = 100_278;
const ASSISTANT: &str = "Assistant: ";

impl PromptBuilder {
    /// A builder with the context, truncation and end id that `config` states.
    #[must_use]
    pub fn new(tokenizer: Arc<ChatTokenizer>, config: &ModelConfig, format: PromptFormat) -> Self {
        Self {
            format,
            tokenizer,
            max_positions: config.max_position_embeddings,
            max_truncation: config.max_tokenizer_truncation,
            eos_token_id: config.eos_token_id,
        }
    }

    /// The same, where prompt and answer have no more than `n_tokens` together, be the context larger.
    #[must_use]
    pub fn within(self, n_tokens: usize) -> Self {
        Self { max_positions: self.max_positions.min(n_tokens), ..self }
    }

    /// The text of generated tokens as far as it is certain: a character whose last bytes are still to come is not in it.
    #[must_use]
    pub fn certain_text(&self, ids: &[u32]) -> String {
        let mut detokenizer = Detokenizer::new(self.tokenizer.clone());
        ids.iter().map(|id| detokenizer.push(*id)).collect()
    }

    /// Text to ids and back.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<ChatTokenizer> {
        &self.tokenizer
    }

    /// The id that ends an answer.
    #[must_use]
    pub fn eos_token_id(&self) -> u32 {
        self.eos_token_id
    }

    /// Most tokens of prompt and answer together.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// The format that `auto` means for a checkpoint: v1 for a vocabulary of 100,278, else v2.
    #[must_use]
    pub fn auto_format(config: &ModelConfig) -> PromptFormat {
        if config.vocab_size == V1_VOCAB_SIZE { PromptFormat::V1 } else { PromptFormat::V2 }
    }

    /// Most tokens of a prompt beside an answer of up to `max_new_tokens`: what these leave of the context, but at least
    /// half of it, and always less than all of it.
    ///
    /// Above half the context the answer's bound gives way, as in the original: prompt and `max_new_tokens` together may
    /// then exceed the context.
    #[must_use]
    pub fn limit(&self, max_new_tokens: usize) -> usize {
        self.original_limit(max_new_tokens).min(self.max_positions.saturating_sub(1))
    }

    /// `sampling` with no more `max_new_tokens` than a prompt of `n_prompt_tokens` leaves of the context, but at least one.
    ///
    /// As in the original, a long `max_new_tokens` still leaves the prompt half the context; the answer gets the rest.
    #[must_use]
    pub fn sampling_beside(&self, n_prompt_tokens: usize, sampling: Sampling) -> Sampling {
        let rest = self.max_positions.saturating_sub(n_prompt_tokens).max(1);
        Sampling { max_new_tokens: sampling.max_new_tokens.min(u32::try_from(rest).unwrap_or(u32::MAX)), ..sampling }
    }

    /// The prompt for an answer of up to `max_new_tokens` to the last of `turns`.
    ///
    /// The last turn must be a user or exec turn. Before it, turns may come in any order: an answer belongs to the
    /// question or the system turn before it, and answers before the first of those are left out.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn build(&self, turns: &[Turn], max_new_tokens: usize) -> Result<Prompt, PromptError> {
        let limit = self.limit(max_new_tokens);
        self.walk(turns, limit, |newest| {
            let tokens = newest.len();
            if tokens > limit { Err(PromptError::NewestTooLong { tokens, limit }) } else { Ok(newest.whole()) }
        })
    }

    /// The prompt as the original makes it, which cuts a newest message that is too long: v1 at its beginning, role mark
    /// included, v2 at its end. For comparing with the original, not for answering people.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn build_as_original(&self, turns: &[Turn], max_new_tokens: usize) -> Result<Prompt, PromptError> {
        let limit = self.original_limit(max_new_tokens);
        let format = self.format;
        self.walk(turns, limit, |mut newest| match format {
            PromptFormat::V1 => {
                let mut ids = newest.whole();
                ids.drain(..ids.len().saturating_sub(limit));
                Ok(ids)
            }
            PromptFormat::V2 => {
                newest.body.truncate(limit.saturating_sub(newest.answer_mark.len()));
                Ok(newest.whole())
            }
        })
    }

    fn original_limit(&self, max_new_tokens: usize) -> usize {
        let limit = (self.max_positions / 2).max(self.max_positions.saturating_sub(max_new_tokens));
        match (self.format, self.max_truncation) {
            (PromptFormat::V2, Some(truncation)) => limit.min(truncation),
            (PromptFormat::V1, _) | (PromptFormat::V2, None) => limit,
        }
    }

    fn walk(
        &self,
        turns: &[Turn],
        limit: usize,
        fit: impl FnOnce(Newest) -> Result<Vec<u32>, PromptError>,
    ) -> Result<Prompt, PromptError> {
        let (newest, older) = check(turns, self.format)?;
        // Newest first, like the walk.
        let mut kept = vec![fit(self.newest(newest)?)?];
        let mut n_kept = kept.iter().map(Vec::len).sum::<usize>();
        let mut n_dropped = older.len();
        let mut round = Vec::new();
        let mut n_round = 0;
        for (index, turn) in older.iter().enumerate().rev() {
            let ids = self.older(turn)?;
            n_round += ids.len();
            // An answer alone may tell that its round does not fit; its question need not be looked at.
            if n_kept + n_round > limit {
                break;
            }
            round.push(ids);
            if turn.role != Role::Assistant {
                kept.append(&mut round);
                n_kept += std::mem::take(&mut n_round);
                n_dropped = index;
            }
        }
        let ids = kept.into_iter().rev().flatten().collect();
        let dropped_rounds =
            older.iter().take(n_dropped).filter(|turn| matches!(turn.role, Role::User | Role::Exec)).count();
        let dropped_system = n_dropped > 0 && older.first().is_some_and(|turn| turn.role == Role::System);
        Ok(Prompt { ids, dropped_turns: (0..n_dropped).collect(), dropped_rounds, dropped_system })
    }

    /// A message is encoded as one string in v1 and apart from its role mark in v2: the ids differ where the mark's last
    /// space would join the first word.
    fn older(&self, turn: &Turn) -> Result<Vec<u32>, PromptError> {
        let (mark, end) = match turn.role {
            Role::System => ("Human: ", "\n"),
            Role::User => ("Human: ", "\n\n"),
            Role::Exec => ("Exec: ", "\n\n"),
            Role::Assistant => (ASSISTANT, ""),
        };
        let mut ids = match self.format {
            PromptFormat::V1 => self.tokenizer.encode(&format!("{mark}{}{end}", turn.text))?,
            PromptFormat::V2 => {
                let mut ids = self.tokenizer.encode(mark)?;
                ids.extend(self.tokenizer.encode(&format!("{}{end}", turn.text))?);
                ids
            }
        };
        if turn.role == Role::Assistant {
            ids.push(self.eos_token_id);
        }
        Ok(ids)
    }

    fn newest(&self, turn: &Turn) -> Result<Newest, PromptError> {
        Ok(match self.format {
            PromptFormat::V1 => {
                let text = format!("Human: {}\n\n{ASSISTANT}", turn.text);
                Newest { body: self.tokenizer.encode(&text)?, answer_mark: Vec::new() }
            }
            PromptFormat::V2 => Newest { body: self.older(turn)?, answer_mark: self.tokenizer.encode(ASSISTANT)? },
        })
    }
}

/// The turn to be answered and those before it, where the format can write all of them.
///
/// # Errors
/// [`PromptError::Role`], [`PromptError::SystemNotFirst`], [`PromptError::NothingToAnswer`].
pub fn check(turns: &[Turn], format: PromptFormat) -> Result<(&Turn, &[Turn]), PromptError> {
    for (index, turn) in turns.iter().enumerate() {
        if !format.supports(turn.role) {
            return Err(PromptError::Role { role: turn.role, format });
        }
        if turn.role == Role::System && index > 0 {
            return Err(PromptError::SystemNotFirst { index });
        }
    }
    match turns.split_last() {
        Some((newest, older)) if matches!(newest.role, Role::User | Role::Exec) => Ok((newest, older)),
        _ => Err(PromptError::NothingToAnswer),
    }
}

/// The turn to be answered, with the mark that asks for the answer.
struct Newest {
    body: Vec<u32>,
    /// Empty where the body ends with it.
    answer_mark: Vec<u32>,
}

impl Newest {
    fn len(&self) -> usize {
        self.body.len() + self.answer_mark.len()
    }

    fn whole(mut self) -> Vec<u32> {
        self.body.append(&mut self.answer_mark);
        self.body
    }
}

#[cfg(test)]
mod tests;
